"""Uniform fake quantization with a clipping value that is learned.

The forward pass does the operations of Brevitas' integer quantizer in the same order, so that a
frozen model computes the same numbers bit for bit. The backward pass is straight-through inside the
clipping range, with the gradient of PACT and APoT for the clipping value (GradFreeBits section 2.1,
doi:10.3390/s22249772, quotes both).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfb_brevitas.quant.integers import IntegerFormat


def fake_quantize(x: Tensor, clipping: Tensor, bits: int, integers: IntegerFormat) -> tuple[Tensor, Tensor]:
    """Quantize ``x`` and return it dequantized, with its scale.

    With s = a / threshold, x_q = s * clamp(round(x / s), smallest, largest); one signed bit is
    x_q = a * sign(x) with sign(0) = +1. Gradients: dx_q/dx is 1 inside the clipping range and 0
    outside; dx_q/da is (x_q - x) / a inside and x_q / a (the sign, at full range) outside.

    Args:
        x: Any shape.
        clipping: The clipping value a > 0; a scalar or a shape that broadcasts to that of ``x``.
        bits: Bit width, at least 1.
        integers: The integer range.

    Returns:
        The quantized values, shape of ``x``, and the scale, shape of ``clipping``.
    """
    scale = scale_of(clipping, bits, integers)
    quantized: Tensor = _FakeQuantize.apply(x, clipping, scale.detach(), bits, integers)  # type: ignore[no-untyped-call]
    return quantized, scale


def scale_of(clipping: Tensor, bits: int, integers: IntegerFormat) -> Tensor:
    """The scale that belongs to a clipping value, s = a / threshold; shape of ``clipping``."""
    # A tensor on the same device, as in Brevitas: CUDA would multiply by the reciprocal of a number.
    return clipping / clipping.new_full((), integers.threshold(bits))


def quantize_values(x: Tensor, scale: Tensor, bits: int, integers: IntegerFormat) -> Tensor:
    """The nearest representable values, without gradients.

    Args:
        x: Any shape.
        scale: Broadcasts to the shape of ``x``.
        bits: Bit width, at least 1.
        integers: The integer range.

    Returns:
        Dequantized values, shape of ``x``.
    """
    if integers.is_bipolar(bits):
        return torch.where(x >= 0, scale, -scale)
    return x.div(scale).round_().clamp_(integers.smallest(bits), integers.largest(bits)).mul_(scale)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, clipping: Tensor, scale: Tensor, bits: int, integers: IntegerFormat
    ) -> Tensor:
        threshold = integers.threshold(bits)
        quantized = quantize_values(x, scale, bits, integers)
        ctx.save_for_backward(x, clipping, quantized)
        ctx.range = (integers.smallest(bits) / threshold, integers.largest(bits) / threshold)
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, clipping, quantized = ctx.saved_tensors
        low, high = ctx.range
        inside = (x >= low * clipping) & (x <= high * clipping)
        to_x = gradient * inside if ctx.needs_input_grad[0] else None
        to_clipping = None
        if ctx.needs_input_grad[1]:
            per_element = gradient * (quantized - x * inside) / clipping
            to_clipping = per_element.sum_to_size(clipping.shape)
        return to_x, to_clipping, None, None, None
