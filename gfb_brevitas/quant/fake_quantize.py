"""Uniform fake quantization with a clipping value that is learned.

The forward pass does the operations of Brevitas' integer quantizer in the same order, so that a
frozen model computes the same numbers bit for bit. The backward pass is straight-through inside the
clipping range, with the gradient of PACT and APoT for the clipping value (GradFreeBits section 2.1,
doi:10.3390/s22249772, quotes both). Each is one pass over a large tensor; the input is all that is kept
between them, and not even that where a BatchNorm has computed it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfb_brevitas.errors import GfbError
from gfb_brevitas.quant import kernels
from gfb_brevitas.quant.batchnorm_output import Affine, batchnorm_output
from gfb_brevitas.quant.integers import IntegerFormat


def fake_quantize(
    x: Tensor, clipping: Tensor, bits: int, integers: IntegerFormat, *, rectify: bool = False
) -> tuple[Tensor, Tensor]:
    """Quantize ``x`` and return it dequantized, with its scale.

    With s = a / threshold, x_q = s * clamp(round(x / s), smallest, largest); one signed bit is
    x_q = a * sign(x) with sign(0) = +1. Gradients: dx_q/dx is 1 inside the clipping range and 0
    outside; dx_q/da is (x_q - x) / a inside and x_q / a (the sign, at full range) outside.

    Args:
        x: Any shape.
        clipping: The clipping value a > 0; a scalar or a shape that broadcasts to that of ``x``.
        bits: Bit width, at least 1.
        integers: The integer range.
        rectify: Quantize relu(x) instead. Only for an unsigned range, which clamps to zero anyway: no pass
            over the tensor is needed but zero itself, as with a ReLU, gets no gradient.

    Returns:
        The quantized values, shape of ``x``, and the scale, shape of ``clipping``.
    """
    scale = scale_of(clipping, bits, integers)
    quantized: Tensor = _FakeQuantize.apply(x, clipping, scale.detach(), bits, integers, rectify)  # type: ignore[no-untyped-call]
    return quantized, scale


def scale_of(clipping: Tensor, bits: int, integers: IntegerFormat) -> Tensor:
    """The scale that belongs to a clipping value, s = a / threshold; shape of ``clipping``."""
    # A tensor on the same device, as in Brevitas: CUDA would multiply by the reciprocal of a number.
    # Not in half precision, as there: it does not hold the thresholds of large widths.
    dtype = torch.promote_types(clipping.dtype, torch.float32)
    return clipping / clipping.new_full((), integers.threshold(bits), dtype=dtype)


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
        # A scale without dimensions may be wider than the values: it does not decide on their type.
        return torch.where(x >= 0, scale, -scale).to(torch.result_type(x, scale))
    codes = x.div(scale).round_()
    return codes.clamp_(*kernels.integer_range(codes.dtype, bits, integers)).mul_(scale)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        clipping: Tensor,
        scale: Tensor,
        bits: int,
        integers: IntegerFormat,
        rectify: bool,
    ) -> Tensor:
        ctx.setting = (bits, integers, rectify)
        ctx.in_kernels = kernels.is_worth_compiling(x, scale)
        ctx.is_affine = False
        if not ctx.in_kernels:
            quantized = quantize_values(x, scale, bits, integers)
            ctx.save_for_backward(clipping, quantized, x)
            return quantized
        affine = batchnorm_output(x) if kernels.serves_affine(x) else None
        ctx.is_affine = affine is not None
        x = kernels.without_gaps(x)
        ctx.save_for_backward(clipping, scale, *((x,) if affine is None else affine.tensors()))
        return kernels.forward(x, scale, bits, integers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        clipping, scale_or_quantized, *kept = ctx.saved_tensors
        x = Affine(*kept) if ctx.is_affine else kept[0]
        if ctx.in_kernels and torch.is_grad_enabled():
            raise GfbError(
                "Second derivatives through quantizers of large tensors are not available: call backward or "
                "autograd.grad without create_graph=True."
            )
        run: Any = kernels.backward if ctx.in_kernels else _backward
        to_x, to_clipping = run(gradient, x, clipping, scale_or_quantized, *ctx.setting)
        return to_x, to_clipping, None, None, None, None


def _backward(
    gradient: Tensor,
    x: Tensor,
    clipping: Tensor,
    quantized: Tensor,
    bits: int,
    integers: IntegerFormat,
    rectify: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients for ``x`` and the clipping value; in the shapes of both."""
    low, high = integers.range_in_clippings(bits)
    above = x > low * clipping if rectify else x >= low * clipping
    inside = (above & (x <= high * clipping)).to(x.dtype)
    error = (quantized - x * inside).mul_(gradient).div_(clipping)
    return gradient * inside, error.sum_to_size(clipping.shape)
