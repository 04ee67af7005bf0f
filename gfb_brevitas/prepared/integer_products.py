"""Convolutions and matrix products in eight-bit integers, through oneDNN.

The sums are exact. A signed activation is an unsigned byte with a zero point. oneDNN can round its result
to the codes of the next quantizer in the same pass, with a ReLU in between: clamp to the range, divide by
the scale, round half to even.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from gfb_brevitas.prepared.site_values import SiteValues, encode


def integer_products_available() -> bool:
    """Whether this machine's processor multiplies bytes (VNNI or AMX) and PyTorch was built with oneDNN."""
    supported = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    return bool(
        torch.backends.mkldnn.is_available()
        and supported()
        and hasattr(torch.ops.onednn, "qconv2d_pointwise")
    )


def integer_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """The integers of quantized weights, int8; shape of ``weight``."""
    return (weight / scale).round().to(torch.int8)


def per_row(scale: Tensor, rows: int) -> Tensor:
    """One scale for each of ``rows`` output channels, shape ``(rows,)``."""
    return scale.reshape(-1).expand(rows).contiguous()


def no_zero_points(scales: Tensor) -> Tensor:
    """Weights have none; shape of ``scales``, int32."""
    return torch.zeros_like(scales, dtype=torch.int32)


def packed_linear_weight(integers: Tensor) -> Tensor:
    """A weight of shape ``(out, in)`` in oneDNN's own layout."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(integers.contiguous(), None)
    return packed


@dataclass(frozen=True, eq=False)
class PackConvolutionWeight:
    """Brings an integer weight, shape ``(out, in / groups, *kernel)``, into oneDNN's own layout.

    A convolution of one dimension is one of images of a single row.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    __name__ = "pack_convolution_weight"

    def __call__(self, integers: Tensor) -> Tensor:
        """The packed weight."""
        scales = torch.ones(len(integers))
        integers = integers.unsqueeze(2) if integers.dim() == 3 else integers
        packed: Tensor = torch.ops.onednn.qconv_prepack(
            integers, scales, 1.0, 0, self.stride, self.padding, self.dilation, self.groups, None
        )
        return packed


@dataclass(frozen=True, eq=False)
class IntegerProduct(ABC):
    """A product of activation codes with a packed weight.

    Attributes:
        source: The quantizer of the activation.
        target: The quantizer whose codes the result is rounded to; ``None`` leaves it as float32.
        rectified: Whether a ReLU comes before the rounding.
    """

    source: SiteValues
    target: SiteValues | None = None
    rectified: bool = False

    __name__ = "integer_product"

    @property
    def worth_keeping(self) -> bool:
        """Whether the result is small: codes."""
        return self.target is not None

    @property
    def sites(self) -> tuple[SiteValues, ...]:
        """The quantizers whose widths the result depends on, apart from the weight's."""
        return (self.source,) if self.target is None else (self.source, self.target)

    def __call__(
        self, codes: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None
    ) -> Tensor:
        """The product.

        Args:
            codes: uint8.
            packed: The weight as packed.
            scales: Shape ``(out,)``.
            zeros: Shape ``(out,)``, int32, zero.
            bias: Shape ``(out,)``, or ``None``.
        """
        weight = (packed, scales, zeros, bias)
        if self.target is None:
            return self._run(codes, weight, (1.0, 0, torch.float32, "none", [], ""))
        if self.target.is_bipolar():
            values = self._run(codes, weight, (1.0, 0, torch.float32, "none", [], ""))
            values = values.relu_() if self.rectified else values
            return encode(values, self.target.scale(), self.target.low(), self.target.high(), bipolar=True)
        scale, zero = self.target.scale_number(), self.target.zero_point()
        lowest = 0.0 if self.rectified else -zero * scale
        highest = self.target.integers.largest(self.target.bits) * scale
        return self._run(codes, weight, (scale, zero, torch.uint8, "hardtanh", [lowest, highest], ""))

    @abstractmethod
    def _run(self, codes: Tensor, weight: tuple[Tensor | None, ...], result: tuple[object, ...]) -> Tensor:
        """The product by oneDNN, with its result as asked."""

    @abstractmethod
    def rounded_to(self, target: SiteValues, *, rectified: bool) -> IntegerProduct:
        """The same product with its result as codes."""


@dataclass(frozen=True, eq=False)
class IntegerLinear(IntegerProduct):
    """``codes`` of shape ``(N, in)`` times a weight of shape ``(out, in)``."""

    __name__ = "integer_linear"

    def _run(self, codes: Tensor, weight: tuple[Tensor | None, ...], result: tuple[object, ...]) -> Tensor:
        source = (codes.contiguous(), self.source.scale_number(), self.source.zero_point())
        product: Tensor = torch.ops.onednn.qlinear_pointwise(*source, *weight, *result)
        return product

    def rounded_to(self, target: SiteValues, *, rectified: bool) -> IntegerLinear:
        """The same product with its result as codes."""
        return IntegerLinear(self.source, target, rectified)


@dataclass(frozen=True, eq=False)
class IntegerConvolution(IntegerProduct):
    """A convolution of ``codes`` of shape ``(N, in, height, width)`` or ``(N, in, length)``."""

    geometry: PackConvolutionWeight | None = None

    __name__ = "integer_convolution"

    def _run(self, codes: Tensor, weight: tuple[Tensor | None, ...], result: tuple[object, ...]) -> Tensor:
        g = self.geometry
        assert g is not None
        is_row = codes.dim() == 3
        codes = codes.unsqueeze(2) if is_row else codes
        codes = codes.contiguous(memory_format=torch.channels_last)
        source = (codes, self.source.scale_number(), self.source.zero_point())
        product: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *source, *weight, g.stride, g.padding, g.dilation, g.groups, *result
        )
        return product.squeeze(2) if is_row else product

    def rounded_to(self, target: SiteValues, *, rectified: bool) -> IntegerConvolution:
        """The same product with its result as codes."""
        return IntegerConvolution(self.source, target, rectified, self.geometry)
