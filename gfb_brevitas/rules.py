"""What users say about the search space: fixed widths, ranges and ties, by name.

Names are matched with shell patterns (:mod:`fnmatch`), e.g. ``"layer1.*.weight_quant"``. The exact name of a
quantizer is no pattern, whatever it holds: it means that quantizer. In a pattern, ``[[]`` is a bracket.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

import numpy as np

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import QuantizerInfo, QuantizerKind

Patterns = str | tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Quantizers whose name matches take widths from ``min_bits`` to ``max_bits``.

    Quantizers that the example inputs never reached are left out; :class:`Fix` sets their widths.

    Args:
        names: Pattern or patterns of quantizer names.
        min_bits: Smallest width in bits.
        max_bits: Largest width in bits.
        kind: Restrict the rule to ``"weight"`` or ``"activation"`` quantizers.
    """

    names: Patterns
    min_bits: int
    max_bits: int
    kind: QuantizerKind | None = None

    def __post_init__(self) -> None:
        _check_names("a range", self.names)
        _check_kind("a range", self.kind)
        if not _are_widths(self.min_bits, self.max_bits) or self.min_bits > self.max_bits:
            raise ConfigurationError(
                f"A range of widths must be whole numbers, 1 <= min <= max <= {MAX_BITS}; "
                f"got {self.min_bits} to {self.max_bits} for {self.names!r}."
            )

    def matches(self, info: QuantizerInfo, names: Container[str] = ()) -> bool:
        """Whether the rule speaks about this quantizer, of a model whose quantizers have these names."""
        return _matches(self.names, self.kind, info, names)


@dataclass(frozen=True)
class Fix:
    """Quantizers whose name matches keep one width and are not searched.

    Args:
        names: Pattern or patterns of quantizer names.
        bits: The width in bits.
        kind: Restrict the rule to ``"weight"`` or ``"activation"`` quantizers.
    """

    names: Patterns
    bits: int
    kind: QuantizerKind | None = None

    def __post_init__(self) -> None:
        _check_names("a fixed width", self.names)
        _check_kind("a fixed width", self.kind)
        if not _are_widths(self.bits):
            raise ConfigurationError(
                f"A fixed width must be a whole number from 1 to {MAX_BITS} bits; "
                f"got {self.bits} for {self.names!r}."
            )

    def matches(self, info: QuantizerInfo, names: Container[str] = ()) -> bool:
        """Whether the rule speaks about this quantizer, of a model whose quantizers have these names."""
        return _matches(self.names, self.kind, info, names)


@dataclass(frozen=True)
class Tie:
    """Quantizers that share one width; those that the example inputs never reached are left out.

    Args:
        names: Pattern or patterns; all quantizers that match any of them become one coordinate.
        by: Instead of ``names``, a function of :class:`~gfb_brevitas.profile.QuantizerInfo`: quantizers
            for which it returns the same key (other than ``None``) become one coordinate.

    Example:
        One width per block: ``Tie(by=lambda info: info.name.split(".")[0])``.
    """

    names: Patterns | None = None
    by: Callable[[QuantizerInfo], Hashable] | None = None

    def __post_init__(self) -> None:
        if (self.names is None) == (self.by is None):
            raise ConfigurationError("A tie takes either names or a function `by`, not both or neither.")
        if self.names is not None:
            _check_names("a tie", self.names)
        if self.by is not None and not callable(self.by):
            raise ConfigurationError(
                "`by` of a tie must be a function of a QuantizerInfo that returns a key, such as "
                f"lambda info: info.kind; got {self.by!r}."
            )

    def key(self, info: QuantizerInfo, names: Container[str] = ()) -> Hashable:
        """The tie's key for this quantizer, see :meth:`Fix.matches`; ``None`` when it does not take part."""
        if self.by is not None:
            return self.by(info)
        assert self.names is not None
        return True if _matches(self.names, None, info, names) else None


Rule = Range | Fix | Tie


def matches_name(name: str, pattern: str, names: Container[str]) -> bool:
    """Whether a name matches a pattern; one that is itself among ``names`` matches nothing else."""
    return name == pattern or (pattern not in names and fnmatchcase(name, pattern))


def _matches(
    patterns: Patterns, kind: QuantizerKind | None, info: QuantizerInfo, names: Container[str]
) -> bool:
    listed = (patterns,) if isinstance(patterns, str) else patterns
    return (kind is None or kind == info.kind) and any(matches_name(info.name, p, names) for p in listed)


def _check_names(rule: str, names: object) -> None:
    patterns = names if isinstance(names, tuple | list) else (names,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigurationError(
            f"`names` of {rule} must be a shell pattern of quantizer names, or a tuple of them, such as "
            f"'conv1.*'; got {names!r}."
        )


def _check_kind(rule: str, kind: object) -> None:
    kinds = get_args(QuantizerKind)
    if kind is not None and kind not in kinds:
        listed = " or ".join(repr(known) for known in kinds)
        raise ConfigurationError(f"`kind` of {rule} must be None, {listed}; got {kind!r}.")


def _are_widths(*widths: object) -> bool:
    return all(isinstance(bits, (int, np.integer)) and 1 <= bits <= MAX_BITS for bits in widths)
