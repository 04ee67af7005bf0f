from __future__ import annotations

import copy

import torch

from gfb_brevitas.quant import (
    IntegerFormat,
    LearnedClippingQuantizer,
    fake_quantize,
    make_clipping,
    normalize_weight,
)
from gfb_brevitas.quant.sampling import ValueSampler

SIGNED = IntegerFormat.plain(signed=True, narrow_range=True)


def make_quantizer(kind="linear", **settings) -> LearnedClippingQuantizer:
    return LearnedClippingQuantizer(make_clipping(kind, torch.tensor(0.9), 8), SIGNED, 4, **settings)


def test_returns_what_a_brevitas_tensor_quantizer_does():
    quantizer, x = make_quantizer(), torch.randn(20)
    values, scale, zero_point, width = quantizer(x)
    expected, expected_scale = fake_quantize(x, torch.tensor(0.9), 4, SIGNED)
    assert torch.equal(values, expected) and torch.equal(scale, expected_scale)
    assert zero_point == 0 and width == 4 and width.dtype == torch.float32


def test_the_width_is_a_setting():
    quantizer, x = make_quantizer(), torch.randn(100)
    for bits in (8, 1, 3):
        quantizer.width.bits = bits
        values, _, _, width = quantizer(x)
        assert width == bits
        assert values.unique().numel() <= 2**bits
        assert torch.equal(values, fake_quantize(x, torch.tensor(0.9), bits, SIGNED)[0])


def test_the_state_holds_the_clipping_and_not_the_width():
    quantizer = make_quantizer()
    assert all(key.startswith("clipping.") for key in quantizer.state_dict())
    other = make_quantizer()
    other.width.bits = 7
    other.load_state_dict(quantizer.state_dict())
    assert other.width.bits == 7


def test_copies_have_their_own_width_and_clipping():
    quantizer = make_quantizer()
    other = copy.deepcopy(quantizer)
    other.width.bits = 2
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    assert quantizer.width.bits == 4 and quantizer.clipping(4) == torch.tensor(0.9)


def test_a_sampler_records_values_and_lets_them_through():
    quantizer, x = make_quantizer(), torch.randn(30)
    quantizer.sampler = ValueSampler(None)
    values, scale, _, width = quantizer(x)
    assert torch.equal(values, x) and torch.equal(quantizer.sampler.values()[0], x)
    assert width == 4 and torch.equal(scale, torch.tensor(0.9) / 7)


def test_normalized_weights_have_no_mean_and_unit_deviation():
    weight = torch.randn(8, 4, 3, 3) * 5 + 2
    normal = normalize_weight(weight)
    torch.testing.assert_close(normal.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(normal.std(correction=0), torch.tensor(1.0))
    values = make_quantizer(normalize=True)(weight)[0]
    assert torch.equal(values, fake_quantize(normal, torch.tensor(0.9), 4, SIGNED)[0])


def test_a_constant_weight_is_normalized_to_zeros():
    assert torch.equal(normalize_weight(torch.full((3, 3), 4.0)), torch.zeros(3, 3))
