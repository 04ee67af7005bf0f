"""Data types of streams and weights, as they follow from the bit widths of a population."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        bipolar = widths == 1  # -1 and 1
        if not bipolar.any():
            return integers
        return replace(
            integers, low=np.where(bipolar, -1.0, integers.low), high=np.where(bipolar, 1.0, integers.high)
        )


def stored_weights(weights: DataTypes, inputs: DataTypes) -> DataTypes:
    """Weights as FINN stores them: two bits for -1 and 1, unless the inputs are -1 and 1 too (XNOR).

    FINN: ``custom_op/fpgadataflow/matrixvectoractivation.py``, minimize_weight_bit_width.

    Args:
        weights: Data types of the weights, ``(P,)``.
        inputs: Data types of what they are multiplied with, ``(P,)``.
    """
    widened = (weights.bits == 1) & (inputs.bits > 1)
    return replace(weights, bits=np.where(widened, 2, weights.bits))
