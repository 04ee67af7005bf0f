"""Brevitas' own quantizers, made by hand: what ours must equal."""

from __future__ import annotations

import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.quant import BinaryQuant, IntQuant, RescalingIntQuant
from brevitas.core.scaling import IntScaling, ParameterScaling
from brevitas.core.zero_point import ZeroZeroPoint
from torch import Tensor, nn

from gfb_brevitas.quant import IntegerFormat


def brevitas_quantizer(clipping: Tensor, bits: int, integers: IntegerFormat) -> nn.Module:
    """Brevitas' quantizer with a threshold of ``clipping``; a bipolar one for one signed bit."""
    shape = None if clipping.dim() == 0 else tuple(clipping.shape)
    scaling = ParameterScaling(clipping, scaling_shape=shape)
    if integers.is_bipolar(bits):
        return BinaryQuant(scaling)
    return RescalingIntQuant(
        int_quant=IntQuant(
            # One narrow unsigned bit has no integer but 0; the format gives it {0, 1}.
            narrow_range=integers.narrow_range and bits > 1,
            signed=integers.signed,
            input_view_impl=nn.Identity(),
        ),
        scaling_impl=scaling,
        int_scaling_impl=IntScaling(
            signed=integers.scale_signed, narrow_range=integers.scale_narrow_range and bits > 1
        ),
        zero_point_impl=ZeroZeroPoint(),
        bit_width_impl=BitWidthConst(bits),
    )


FORMATS = [
    IntegerFormat.plain(signed=True, narrow_range=True),
    IntegerFormat.plain(signed=True, narrow_range=False),
    IntegerFormat.plain(signed=False, narrow_range=False),
    IntegerFormat.plain(signed=False, narrow_range=True),
    # The scale of the other sign: an unsigned branch that meets a signed one, and the reverse.
    IntegerFormat(signed=False, narrow_range=False, scale_signed=True, scale_narrow_range=False),
    IntegerFormat(signed=True, narrow_range=True, scale_signed=False, scale_narrow_range=False),
]


def format_name(integers: IntegerFormat) -> str:
    """A readable test id."""
    words = ["signed" if integers.signed else "unsigned"]
    if integers.narrow_range:
        words.append("narrow")
    if integers.scale_signed != integers.signed:
        words.append("on_a_signed_scale" if integers.scale_signed else "on_an_unsigned_scale")
    return "_".join(words)


def straight_through(x: Tensor, clipping: Tensor, bits: int, integers: IntegerFormat) -> Tensor:
    """The quantizer as the paper writes it, a * round(clip(x / a) n) / n, with autograd's gradients."""
    n = integers.threshold(bits)
    clipped = (x / clipping).clamp(integers.smallest(bits) / n, integers.largest(bits) / n)
    if integers.is_bipolar(bits):
        rounded = torch.where(clipped >= 0, 1.0, -1.0).to(x)
    else:
        rounded = torch.round(clipped * n) / n
    return clipping * (clipped + (rounded - clipped).detach())
