from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gfb_brevitas.prepared.integer_products import (
    IntegerConvolution,
    IntegerLinear,
    IntegerProduct,
    PackConvolutionWeight,
    integer_products_available,
    no_zero_points,
    packed_linear_weight,
)
from gfb_brevitas.prepared.site_values import SiteValues, decode
from tests.core.prepared.test_site_values import site

pytestmark = pytest.mark.skipif(
    not integer_products_available(), reason="needs a CPU that multiplies bytes (VNNI or AMX)"
)


def codes_of(source: SiteValues, *shape: int) -> Tensor:
    levels = source.integers.largest(source.bits) - source.integers.smallest(source.bits) + 1
    return torch.randint(0, levels, shape, dtype=torch.uint8)


def exactly(source: SiteValues, codes: Tensor, weight: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    values = decode(codes, source.scale(), source.low()).double()
    return values, weight.double() * scales.double().reshape(-1, *(1,) * (weight.dim() - 1))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("groups, stride, padding, dilation", [(1, 1, 1, 1), (4, 2, 0, 1), (8, 1, 2, 2)])
def test_convolutions_are_exact(
    bits: int, signed: bool, groups: int, stride: int, padding: int, dilation: int
) -> None:
    torch.manual_seed(0)
    source = site(bits, signed=signed, narrow_range=False)
    codes = codes_of(source, 3, 8, 9, 9)
    weight = torch.randint(-127, 128, (16, 8 // groups, 3, 3), dtype=torch.int8)
    scales, bias = torch.rand(16) - 0.5, torch.randn(16)  # a folded BatchNorm makes scales negative
    settings = ((stride,) * 2, (padding,) * 2, (dilation,) * 2, groups)
    geometry = PackConvolutionWeight(*settings)
    product = IntegerConvolution(source, geometry=geometry)
    computed = product(codes, geometry(weight), scales, no_zero_points(scales), bias)
    values, exact_weight = exactly(source, codes, weight, scales)
    expected = F.conv2d(values, exact_weight, bias.double(), *settings)
    assert torch.allclose(computed.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("seed", range(24))
def test_convolutions_of_random_shapes_are_exact(seed: int) -> None:
    """One and two dimensions, plain, grouped and depthwise, padded and not, strided, dilated."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    dimensions = 1 + seed % 2
    groups = int(rng.choice([1, 2, 4, 12]))
    inputs, outputs = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 4))
    kernel = [int(k) for k in rng.integers(1, 6, dimensions)]
    stride, dilation = ([int(n) for n in rng.integers(1, 4, dimensions)] for _ in range(2))
    padding = [int(rng.integers(0, d * (k - 1) + 1)) for d, k in zip(dilation, kernel, strict=True)]
    source = site(int(rng.integers(1, 9)), signed=bool(rng.integers(2)), narrow_range=False)
    codes = codes_of(source, 3, inputs, *(int(n) for n in rng.integers(13, 20, dimensions)))
    weight = torch.randint(-127, 128, (outputs, inputs // groups, *kernel), dtype=torch.int8)
    scales, bias = torch.rand(outputs) - 0.5, torch.randn(outputs)
    row = [(1, 0, 1)] if dimensions == 1 else []
    geometry = PackConvolutionWeight(
        *zip(*row, *zip(stride, padding, dilation, strict=True), strict=True), groups
    )
    product = IntegerConvolution(source, geometry=geometry)
    computed = product(codes, geometry(weight), scales, no_zero_points(scales), bias)
    values, exact_weight = exactly(source, codes, weight, scales)
    convolve = F.conv1d if dimensions == 1 else F.conv2d
    expected = convolve(values, exact_weight, bias.double(), stride, padding, dilation, groups)
    assert computed.shape == expected.shape
    assert torch.allclose(computed.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("target_bits", [1, 2, 4, 8])
@pytest.mark.parametrize("layer", ["convolution", "linear"])
def test_results_are_rounded_to_the_codes_of_the_next_quantizer(
    layer: str, target_bits: int, rectified: bool, signed: bool
) -> None:
    torch.manual_seed(0)
    source = site(4, signed=False, narrow_range=False)
    target = site(target_bits, signed=signed, narrow_range=False, clipping=10.0)
    plain: IntegerProduct
    if layer == "linear":
        codes = codes_of(source, 32, 24)
        weight = torch.randint(-7, 8, (16, 24), dtype=torch.int8)
        plain, packed = IntegerLinear(source), packed_linear_weight(weight)
    else:
        codes = codes_of(source, 4, 8, 6, 6)
        weight = torch.randint(-7, 8, (16, 8, 3, 3), dtype=torch.int8)
        geometry = PackConvolutionWeight((1, 1), (1, 1), (1, 1), 1)
        plain, packed = IntegerConvolution(source, geometry=geometry), geometry(weight)
    scales = torch.full((16,), 0.3)
    arguments = (codes, packed, scales, no_zero_points(scales), torch.randn(16))
    values = plain(*arguments)
    values = values.relu() if rectified else values
    rounded = plain.rounded_to(target, rectified=rectified)
    computed = decode(rounded(*arguments), target.scale(), target.low())
    assert torch.allclose(computed, target.quantized(values), atol=1e-6)
    assert rounded.sites == (source, target)
    assert len(computed.unique()) > 1 or (signed and rectified and target_bits == 1)
