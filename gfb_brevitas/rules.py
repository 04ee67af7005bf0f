"""What users say about the search space: fixed widths, ranges and ties, by name.

Names are matched with shell patterns (:mod:`fnmatch`), e.g. ``"layer1.*.weight_quant"``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import QuantizerInfo, QuantizerKind

Patterns = str | tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Quantizers whose name matches take widths from ``min_bits`` to ``max_bits``.

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
        if not _are_widths(self.min_bits, self.max_bits) or self.min_bits > self.max_bits:
            raise ConfigurationError(
                f"A range of widths must be whole numbers, 1 <= min <= max <= {MAX_BITS}; "
                f"got {self.min_bits} to {self.max_bits} for {self.names!r}."
            )

    def matches(self, info: QuantizerInfo) -> bool:
        """Whether the rule speaks about this quantizer."""
        return _matches(self.names, self.kind, info)


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
        if not _are_widths(self.bits):
            raise ConfigurationError(
                f"A fixed width must be a whole number from 1 to {MAX_BITS} bits; "
                f"got {self.bits} for {self.names!r}."
            )

    def matches(self, info: QuantizerInfo) -> bool:
        """Whether the rule speaks about this quantizer."""
        return _matches(self.names, self.kind, info)


@dataclass(frozen=True)
class Tie:
    """Quantizers that share one width.

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

    def key(self, info: QuantizerInfo) -> Hashable:
        """The tie's key for this quantizer; ``None`` when it does not take part."""
        if self.by is not None:
            return self.by(info)
        assert self.names is not None
        return True if _matches(self.names, None, info) else None


Rule = Range | Fix | Tie


def _matches(names: Patterns, kind: QuantizerKind | None, info: QuantizerInfo) -> bool:
    patterns: Iterable[str] = (names,) if isinstance(names, str) else names
    return (kind is None or kind == info.kind) and any(fnmatchcase(info.name, p) for p in patterns)


def _are_widths(*widths: object) -> bool:
    return all(isinstance(bits, (int, np.integer)) and 1 <= bits <= MAX_BITS for bits in widths)
