"""What a searchable quantizer is at the width in force, as the tensors that arithmetic needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from gfb_brevitas.quant import IntegerFormat, LearnedClippingQuantizer, RuntimeBitWidth
from gfb_brevitas.quant.fake_quantize import quantize_values, scale_of

T = TypeVar("T")
LARGEST_CODE_BITS = 8


class WidthInForce:
    """The width of a quantizer that keeps Brevitas' own arithmetic.

    Args:
        width: Where the model holds the width.
        index: The quantizer's number in the captured graph.
    """

    def __init__(self, width: RuntimeBitWidth, index: int) -> None:
        self.holder, self.index = width, index

    @property
    def bits(self) -> int:
        """The width in force."""
        return self.holder.bits

    def width(self) -> Tensor:
        """The width in force as a scalar tensor."""
        # Not by calling it: while a model is captured its forward is the operator that asks here.
        value: Tensor = type(self.holder).forward(self.holder)
        return value

    def forget(self) -> None:
        """Let go of what was computed from parameters, which have changed."""


class SiteValues(WidthInForce):
    """A learned quantizer's scale and range at the width in force; kept per width.

    Integers q of a width stand for the values s * q. Their *codes* are q - low, so that they start at
    zero and fit an unsigned byte up to 8 bits.

    Args:
        quantizer: The quantizer; its clipping values must not change while this object is used.
        index: The quantizer's number in the captured graph.
    """

    def __init__(self, quantizer: LearnedClippingQuantizer, index: int) -> None:
        super().__init__(quantizer.width, index)
        self.quantizer = quantizer
        self._kept: dict[tuple[str, int], object] = {}

    @property
    def integers(self) -> IntegerFormat:
        """The integer range."""
        return self.quantizer.integers

    @property
    def is_per_tensor(self) -> bool:
        """Whether there is one scale for the whole tensor."""
        return self.quantizer.clipping.unit.numel() == 1

    def forget(self) -> None:
        """Let go of what was computed from parameters, which have changed."""
        self._kept.clear()

    def _keep(self, name: str, make: Callable[[], T]) -> T:
        key = (name, self.bits)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # type: ignore[return-value]

    def scale(self) -> Tensor:
        """The scale s; a scalar or one per channel."""
        return self._keep("scale", self._scale)

    def scale_number(self) -> float:
        """The one scale as a number."""
        return self._keep("number", lambda: float(self._scale()))

    def low(self) -> Tensor:
        """The smallest integer, a scalar."""
        return self._keep("low", lambda: self._scalar(self.integers.smallest(self.bits)))

    def high(self) -> Tensor:
        """The largest integer, a scalar."""
        return self._keep("high", lambda: self._scalar(self.integers.largest(self.bits)))

    def zero_point(self) -> int:
        """The code of zero."""
        return -self.integers.smallest(self.bits)

    def is_bipolar(self) -> bool:
        """Whether the values are -s and +s."""
        return self.integers.is_bipolar(self.bits)

    def quantized(self, x: Tensor) -> Tensor:
        """The nearest representable values, as the model itself computes them; shape of ``x``."""
        return quantize_values(x, self.scale(), self.bits, self.integers)

    def _scale(self) -> Tensor:
        return scale_of(self.quantizer.clipping(self.bits), self.bits, self.integers).detach()

    def _scalar(self, value: int) -> Tensor:
        return self.quantizer.clipping.unit.new_full((), float(value))


def encode(x: Tensor, scale: Tensor, low: Tensor, high: Tensor, bipolar: bool) -> Tensor:
    """Codes of the nearest representable values, uint8; shape of ``x``."""
    if bipolar:
        return (x >= 0).to(torch.uint8) * 2
    return ((x / scale).round().clamp(low, high) - low).to(torch.uint8)


def decode(codes: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    """The values that codes stand for, float32; shape of ``codes``."""
    return (codes.to(torch.float32) + low) * scale


def round_to_scale(x: Tensor, scale: Tensor, low: Tensor, high: Tensor, bipolar: bool) -> Tensor:
    """The nearest representable values; shape of ``x``."""
    if bipolar:
        return torch.where(x >= 0, scale, -scale).to(torch.result_type(x, scale))
    return (x / scale).round().clamp(low, high) * scale
