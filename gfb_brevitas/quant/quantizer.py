"""The quantizer whose bit width is a run-time setting."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.quant.clipping import Clipping
from gfb_brevitas.quant.fake_quantize import fake_quantize, scale_of
from gfb_brevitas.quant.integers import IntegerFormat
from gfb_brevitas.quant.sampling import ValueSampler

QuantizerOutput = tuple[Tensor, Tensor, Tensor, Tensor]
"""Values, scale, zero point, bit width: what Brevitas' tensor quantizers return."""


class RuntimeBitWidth(nn.Module):
    """A bit width that may change between forwards; fits where Brevitas has a constant one.

    Attributes:
        bits: The bit width in force.
    """

    _widths: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("_widths", torch.arange(MAX_BITS + 1, dtype=torch.float32), persistent=False)

    def forward(self) -> Tensor:
        """The bit width in force as a scalar tensor."""
        return self._widths[self.bits]

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"bits={self.bits}"


class LearnedClippingQuantizer(nn.Module):
    """The quantizer of GradFreeBits: learned clipping a(b), any width from 1 bit.

    Stands where Brevitas has a tensor quantizer.

    Args:
        clipping: The clipping value as a function of the width; may be shared.
        integers: The integer range.
        bits: Bit width to start with.
        normalize: Quantize (w - mean) / std instead of w; only for weights [ours: the recipe of APoT,
            arXiv:1909.13144].

    Attributes:
        width: Holds the bit width in force.
        sampler: When set, the quantizer passes its input through and records it (calibration).
        rectify: Whether a ReLU comes first; only with an unsigned range, where it costs nothing.
    """

    _zero: Tensor

    def __init__(
        self, clipping: Clipping, integers: IntegerFormat, bits: int, *, normalize: bool = False
    ) -> None:
        super().__init__()
        self.clipping = clipping
        self.integers = integers
        self.normalize = normalize
        self.width = RuntimeBitWidth(bits)
        self.sampler: ValueSampler | None = None
        self.rectify = False
        self.register_buffer("_zero", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> QuantizerOutput:
        """Quantize ``x`` (any shape) at the width in force."""
        if self.normalize:
            x = normalize_weight(x)
        bits = self.width.bits
        if self.sampler is not None:
            x = x.relu() if self.rectify else x
            self.sampler.add(x)
            return x, scale_of(self.clipping(bits), bits, self.integers), self._zero, self.width()
        values, scale = fake_quantize(x, self.clipping(bits), bits, self.integers, rectify=self.rectify)
        return values, scale, self._zero, self.width()

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        sign = "signed" if self.integers.signed else "unsigned"
        relu = ", after a ReLU" if self.rectify else ""
        return f"{sign}, narrow_range={self.integers.narrow_range}{relu}"


def normalize_weight(weight: Tensor) -> Tensor:
    """(w - mean) / std over the whole tensor; shape of ``weight``."""
    return (weight - weight.mean()) / weight.std(correction=0).clamp_min(1e-12)
