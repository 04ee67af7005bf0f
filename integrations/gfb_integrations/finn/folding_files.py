"""FINN's folding files, checked before and after FINN reads them: it passes over much that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import ConfigurationError

_BEGIN = "`FinnEstimate.folding` gives a file to begin with."


@dataclass(frozen=True, kw_only=True)
class FoldingNames:
    """What a folding file names.

    Attributes:
        layers: Names of layers.
        operators: Operators that defaults are given for.
    """

    layers: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()

    def require_in(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Refuse a file of another network, which would do nothing.

        Args:
            nodes: The network's hardware layers, with ``name`` and ``kind``.

        Raises:
            ConfigurationError: If it names what the network has not.
        """
        for what, named, there in (
            ("layers", self.layers, {node["name"] for node in nodes}),
            ("operators in its Defaults", self.operators, {node["kind"] for node in nodes}),
        ):
            # Converters and buffers are put in after the estimates.
            missing = sorted(name for name in named - there if not name.startswith("Streaming"))
            if missing:
                raise ConfigurationError(
                    f"The folding file names {what} that the network has not: {', '.join(missing)}. It has: "
                    f"{', '.join(sorted(there))}. {_BEGIN}"
                )


def read_folding_file(path: str | Path | None) -> FoldingNames:
    """Check a folding file.

    Raises:
        ConfigurationError: Naming what is wrong in it.
    """
    if path is None:
        return FoldingNames()
    try:
        folding = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"The folding file {str(path)!r} cannot be read: {error}.") from error
    if not isinstance(folding, dict) or not all(isinstance(entry, dict) for entry in folding.values()):
        raise ConfigurationError(
            f"The folding file {str(path)!r} must hold one object per layer, under its name. {_BEGIN}"
        )
    defaults = folding.pop("Defaults", {})
    operators: set[str] = set()
    problems: list[str] = []
    for name, value, scopes in _defaults(defaults, problems):
        problems += _problems("Defaults", name, value)
        operators.update(scopes)
    problems += [
        problem
        for layer, entry in folding.items()
        for name, value in entry.items()
        for problem in _problems(layer, name, value)
    ]
    if problems:
        raise ConfigurationError(f"The folding file {str(path)!r}: {'; '.join(problems)}. {_BEGIN}")
    return FoldingNames(layers=frozenset(folding), operators=frozenset(operators))


def _defaults(defaults: Mapping[str, Any], problems: list[str]) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Attribute, value and operators of every default."""
    for name, entry in defaults.items():
        pairs = list(zip(entry[::2], entry[1::2], strict=False)) if isinstance(entry, list) else []
        scopes = [(scope,) if isinstance(scope, str) else scope for _, scope in pairs]
        if (
            not pairs
            or len(entry) % 2
            or not all(isinstance(scope, (list, tuple)) for scope in scopes)
            or not all(isinstance(operator, str) for scope in scopes for operator in scope)
        ):
            problems.append(
                f'Defaults takes a value and its operators per attribute, e.g. "PE": [2, ["MVAU_hls"]] or '
                f'[2, ["all"]]; {name} is {json.dumps(entry):.100}'
            )
            continue
        for (value, _), scope in zip(pairs, scopes, strict=True):
            yield name, value, tuple(operator for operator in scope if operator != "all")


def _problems(where: str, name: str, value: Any) -> Iterator[str]:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if name in ("PE", "SIMD") and not (is_integer and value >= 1):
        yield f"{name} of {where} must be a whole number from 1; it is {json.dumps(value):.100}"
    elif name == "parallel_window" and not (is_integer and value in (0, 1)):
        yield f"{name} of {where} must be 0 or 1; it is {json.dumps(value):.100}"
    elif value is None or isinstance(value, dict):
        yield f"{name} of {where} must be a number, a text or a list; it is {json.dumps(value):.100}"
