"""What FINN does not build as it stands, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gfb_brevitas.errors import ExportError

Severity = Literal["refused", "wrong", "off the FPGA", "in floats"]
"""``"refused"``: the build fails; ``"wrong"``: it builds something that computes other values;
``"off the FPGA"``: the layer is left to software; ``"in floats"``: it is built of floating-point units, or
computed on the CPU behind the FPGA; the values are right."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that FINN does not build as it stands.

    Attributes:
        layer: Name of the layer.
        rule: Name of the rule that it breaks, for programs.
        severity: What FINN does.
        problem: What is wrong.
        advice: What to change.
    """

    layer: str
    rule: str
    severity: Severity
    problem: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What :func:`~gfb_integrations.finn.check` found.

    Attributes:
        findings: What FINN does not build as it stands, in the order of the layers.
        layers: Layers of the model that were looked at.
    """

    findings: tuple[Finding, ...]
    layers: int

    @property
    def builds(self) -> bool:
        """Whether FINN builds all of it, and right."""
        return not self._obstacles

    def __str__(self) -> str:
        lines = [self.verdict]
        lines += [f"- {f.layer} ({f.severity}): {f.problem} {f.advice}" for f in self.findings]
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """What it comes to, in one line."""
        return f"{self.layers} layers: " + (
            "FINN builds it" if self.builds else "FINN does NOT build it as it stands"
        )

    @property
    def _obstacles(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity != "in floats")

    def require(self) -> None:
        """Go on only if FINN builds the model.

        Raises:
            FinnCheckError: Listing what it does not build.
        """
        if self._obstacles:
            raise FinnCheckError(self._obstacles)


class FinnCheckError(ExportError):
    """A model that FINN does not build as it stands.

    Attributes:
        findings: What was found.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        lines = [f"- {f.layer} ({f.severity}): {f.problem} {f.advice}" for f in findings]
        super().__init__("FINN does not build this model as it stands:\n" + "\n".join(lines))
