from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gfb_brevitas.quant import IntegerFormat, fake_quantize
from tests.core.quant.brevitas_oracle import FORMATS, brevitas_quantizer, format_name, straight_through

SIGNED = IntegerFormat.plain(signed=True, narrow_range=True)
UNSIGNED = IntegerFormat.plain(signed=False, narrow_range=False)

formats = st.sampled_from(FORMATS)
widths = st.integers(1, 8)
clippings = st.floats(2.0**-20, 2.0**20, width=32)
# Everything that float32 has but NaN: zeros of both signs, denormals, infinities.
anything = hnp.arrays(np.float32, 24, elements=st.floats(width=32, allow_nan=False))


def assert_equals_brevitas(x: Tensor, clipping: Tensor, bits: int, integers: IntegerFormat) -> None:
    expected, expected_scale, _, _ = brevitas_quantizer(clipping, bits, integers)(x)
    values, scale = fake_quantize(x, clipping, bits, integers)
    assert torch.equal(values, expected)
    assert torch.equal(scale.expand_as(expected_scale), expected_scale)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("integers", FORMATS, ids=format_name)
def test_equals_brevitas_on_random_values(integers: IntegerFormat, bits: int):
    x = torch.randn(4, 3, 5, 5) * 2
    assert_equals_brevitas(x, torch.tensor(1.7), bits, integers)
    assert_equals_brevitas(x, torch.rand(1, 3, 1, 1) + 0.3, bits, integers)  # a channel of an activation
    assert_equals_brevitas(x, torch.rand(4, 1, 1, 1) + 0.3, bits, integers)  # an output channel of a weight


@given(anything, clippings, widths, formats)
def test_equals_brevitas_on_any_values(values, clipping, bits, integers):
    assert_equals_brevitas(torch.from_numpy(values), torch.tensor(clipping), bits, integers)


@given(anything, hnp.arrays(np.float32, (3, 1), elements=clippings), widths, formats)
def test_equals_brevitas_on_any_values_per_channel(values, clipping, bits, integers):
    x = torch.from_numpy(values).reshape(3, 8)
    assert_equals_brevitas(x, torch.from_numpy(clipping), bits, integers)


@given(st.integers(-20, 20), widths, formats)
def test_equals_brevitas_at_ties_and_at_the_ends_of_the_range(exponent, bits, integers):
    # The scale is a power of two, so that k + 1/2 steps are exact: every tie of the range and beyond.
    scale = 2.0**exponent
    clipping = torch.tensor(scale * integers.threshold(bits))
    steps = torch.arange(integers.smallest(bits) - 2, integers.largest(bits) + 3) + 0.5
    halves, wholes = steps * scale, (steps - 0.5) * scale
    assert_equals_brevitas(torch.cat([halves, wholes]), clipping, bits, integers)


@given(clippings, widths, formats)
def test_equals_brevitas_next_to_ties_of_any_scale(clipping, bits, integers):
    # Where x / s and x * (1 / s) round to different integers.
    a = torch.tensor(clipping)
    steps = torch.arange(integers.smallest(bits), integers.largest(bits) + 1) + 0.5
    halves = steps * (a / integers.threshold(bits))
    for x in (halves, halves.nextafter(halves + 1), halves.nextafter(halves - 1)):
        assert_equals_brevitas(x, a, bits, integers)


@given(anything, clippings)
def test_one_unsigned_bit_is_zero_or_the_clipping_value(values, clipping):
    x, a = torch.from_numpy(values), torch.tensor(clipping)
    values, scale = fake_quantize(x, a, 1, UNSIGNED)
    assert scale == a
    assert torch.all((values == 0) | (values == a))
    assert torch.equal(values == a, x / a > 0.5)


def test_one_signed_bit_takes_zero_to_plus_a():
    x = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 3.0, -3.0])
    values, _ = fake_quantize(x, torch.tensor(0.7), 1, SIGNED)
    assert torch.equal(values, torch.tensor([0.7, 0.7, 0.7, -0.7, 0.7, -0.7]))


@given(anything, clippings, widths, formats)
def test_quantizing_twice_changes_nothing(values, clipping, bits, integers):
    once, scale = fake_quantize(torch.from_numpy(values), torch.tensor(clipping), bits, integers)
    twice, _ = fake_quantize(once, torch.tensor(clipping), bits, integers)
    assert torch.equal(once, twice)
    integer = (once / scale).round()
    assert torch.equal(integer * scale, once)
    assert integers.smallest(bits) <= integer.min() and integer.max() <= integers.largest(bits)


def test_nan_stays_nan_so_that_it_is_noticed():
    values, _ = fake_quantize(torch.tensor([float("nan"), 1.0]), torch.tensor(1.0), 4, SIGNED)
    assert values.isnan().tolist() == [True, False]


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1, 3, 1), (4, 1, 1)], ids=["tensor", "channel", "output_channel"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@pytest.mark.parametrize("integers", FORMATS, ids=format_name)
def test_gradients_are_those_of_the_straight_through_formula(integers, bits, shape):
    # Double precision, so that rounding errors do not decide on which side of a step a value is.
    x = torch.randn(4, 3, 50, dtype=torch.float64, requires_grad=True)
    clipping = (torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_()
    upstream = torch.randn_like(x)

    expected = torch.autograd.grad(straight_through(x, clipping, bits, integers), (x, clipping), upstream)
    values, _ = fake_quantize(x, clipping, bits, integers)
    received = torch.autograd.grad(values, (x, clipping), upstream)

    assert received[1].shape == shape
    for got, wanted in zip(received, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("integers", [SIGNED, UNSIGNED], ids=format_name)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gradients_in_the_words_of_the_papers_section_2_1(integers, bits):
    a = torch.tensor(0.8, requires_grad=True)
    inside, above, below = torch.tensor(0.29), torch.tensor(1.3), torch.tensor(-1.3)

    def gradients(value: Tensor) -> tuple[float, float, float]:
        x = value.clone().requires_grad_()
        quantized, _ = fake_quantize(x, a, bits, integers)
        to_x, to_a = torch.autograd.grad(quantized, (x, a))
        return quantized.item(), to_x.item(), to_a.item()

    quantized, to_x, to_a = gradients(inside)
    assert to_x == 1 and to_a == pytest.approx((quantized - 0.29) / 0.8, abs=1e-6)
    _, to_x, to_a = gradients(above)
    assert to_x == 0 and to_a == pytest.approx(1)
    _, to_x, to_a = gradients(below)
    assert to_x == 0 and to_a == pytest.approx(-1 if integers.signed else 0)


@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("integers", FORMATS, ids=format_name)
def test_clipping_gradient_is_the_slope_where_values_are_clipped(integers, bits):
    # Beyond the range the quantizer is differentiable in a, so finite differences are legitimate.
    x = torch.tensor([-9.0, 9.0], dtype=torch.float64)
    a = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    values, _ = fake_quantize(x, a, bits, integers)
    (gradient,) = torch.autograd.grad(values.sum() + 3 * values[1], a)

    def total(clipping: float) -> Tensor:
        moved, _ = fake_quantize(x, torch.tensor(clipping, dtype=torch.float64), bits, integers)
        return moved.sum() + 3 * moved[1]

    assert gradient == pytest.approx(float(total(1.101) - total(1.099)) / 0.002, abs=1e-9)


@given(widths, formats, st.integers(0, 2**31))
def test_gradients_add_up_as_the_quantizer_scales(bits, integers, seed):
    # x_q(c x, c a) = c x_q(x, a), which holds exactly and through the rounding, so Euler's identity does.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, dtype=torch.float64, generator=generator).requires_grad_()
    a = torch.full((), 0.9, dtype=torch.float64, requires_grad=True)
    values, _ = fake_quantize(x, a, bits, integers)
    to_x, to_a = torch.autograd.grad(values.sum(), (x, a))
    assert ((to_x * x).sum() + to_a * a).item() == pytest.approx(values.sum().item(), abs=1e-9)


def test_the_scale_carries_gradients_too():
    # A quantized bias is scaled by it.
    a = torch.tensor(0.9, requires_grad=True)
    _, scale = fake_quantize(torch.zeros(2), a, 4, SIGNED)
    (gradient,) = torch.autograd.grad(scale, a)
    assert gradient == pytest.approx(1 / 7)


def test_what_needs_no_gradient_gets_none():
    x, a = torch.randn(5), torch.tensor(0.9)
    assert not fake_quantize(x, a, 4, SIGNED)[0].requires_grad
    values, _ = fake_quantize(x.requires_grad_(), a, 4, SIGNED)
    values.sum().backward()
    assert a.grad is None and x.grad is not None


def test_inputs_are_left_as_they_are():
    x, a = torch.randn(100), torch.tensor(0.5)
    kept = x.clone()
    for bits in (1, 2, 8):
        fake_quantize(x, a, bits, SIGNED)
    assert torch.equal(x, kept) and a == 0.5


@pytest.mark.cuda
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("integers", FORMATS, ids=format_name)
def test_equals_brevitas_on_cuda(integers: IntegerFormat, bits: int):
    x = torch.randn(100_000, device="cuda")
    clipping = torch.tensor(1.7, device="cuda")
    expected, expected_scale, _, _ = brevitas_quantizer(clipping, bits, integers).to("cuda")(x)
    values, scale = fake_quantize(x, clipping, bits, integers)
    assert torch.equal(scale.expand_as(expected_scale), expected_scale)
    assert torch.equal(values, expected)
