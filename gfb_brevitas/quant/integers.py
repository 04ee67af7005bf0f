"""Integer ranges: which integers a bit width stands for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class IntegerFormat:
    """The integer range of a quantizer, for every bit width.

    Follows Brevitas: a signed range of b bits is [-2^(b-1), 2^(b-1) - 1], without its most negative
    integer when narrow; an unsigned one is [0, 2^b - 1]. One bit is {0, 1} unsigned and bipolar,
    {-1, +1}, signed.

    The clipping value a and the scale s are related by s = a / threshold. The threshold is that of
    the format itself unless the quantizer takes its scale from one of the other sign (Brevitas does
    this to let an unsigned branch meet a signed one in an addition).

    Attributes:
        signed: Whether the range is signed.
        narrow_range: Whether the range drops one end (see above).
        scale_signed: Whether the threshold is that of a signed range.
        scale_narrow_range: Whether the threshold is that of a narrow range.
    """

    signed: bool
    narrow_range: bool
    scale_signed: bool
    scale_narrow_range: bool

    @classmethod
    def plain(cls, *, signed: bool, narrow_range: bool) -> IntegerFormat:
        """A format whose scale belongs to its own range."""
        return cls(
            signed=signed, narrow_range=narrow_range, scale_signed=signed, scale_narrow_range=narrow_range
        )

    def is_bipolar(self, bits: int) -> bool:
        """Whether ``bits`` wide values are -1 and +1 instead of a range of integers."""
        return self.signed and bits == 1

    def smallest(self, bits: int) -> int:
        """Smallest integer at a width of ``bits``."""
        if not self.signed:
            return 0
        return -1 if bits == 1 else -(1 << (bits - 1)) + int(self.narrow_range)

    def largest(self, bits: int) -> int:
        """Largest integer at a width of ``bits``."""
        if not self.signed:
            return max(1, (1 << bits) - 1 - int(self.narrow_range))
        return 1 if bits == 1 else (1 << (bits - 1)) - 1

    def threshold(self, bits: int) -> int:
        """The integer that the clipping value maps to at a width of ``bits``."""
        if bits == 1:
            return 1
        if self.scale_signed:
            return (1 << (bits - 1)) - int(self.scale_narrow_range)
        return (1 << bits) - 1 - int(self.scale_narrow_range)

    def range_in_clippings(self, bits: int) -> tuple[float, float]:
        """Smallest and largest representable value at a width of ``bits``, in multiples of a."""
        threshold = self.threshold(bits)
        return self.smallest(bits) / threshold, self.largest(bits) / threshold
