"""Data types of streams and weights, as they follow from the bit widths of a population."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gfb_brevitas.hardware.datatypes import DataTypes
from gfb_brevitas.space import Bits


@dataclass(frozen=True, kw_only=True)
class QuantizerType:
    """The integers of a quantizer.

    Attributes:
        column: Its column in bit matrices; ``None`` when its width is not searched.
        bits: Its width in bits when it is not searched.
        signed: Whether the integers are signed.
        narrow_range: Whether the most negative one is left out.
    """

    column: int | None
    bits: int
    signed: bool
    narrow_range: bool

    def of(self, bits: Bits) -> DataTypes:
        """The data types of candidates: bits ``(P, quantizers)`` to types of ``(P,)``."""
        widths = np.full(len(bits), self.bits) if self.column is None else bits[:, self.column]
        if not self.signed:
            return DataTypes.unsigned(widths)
        integers = DataTypes.signed(widths, narrow=self.narrow_range)
        # One bit holds -1 and 1. FINN stores such weights in two bits unless the activations are bipolar too.
        bipolar = widths == 1
        if not bipolar.any():
            return integers
        return DataTypes(
            bits=np.where(bipolar, 2, integers.bits),
            low=np.where(bipolar, -1.0, integers.low),
            high=np.where(bipolar, 1.0, integers.high),
        )
