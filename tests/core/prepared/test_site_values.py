from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.prepared.site_values import SiteValues, decode, encode, round_to_scale
from gfb_brevitas.quant import IntegerFormat, LearnedClippingQuantizer, make_clipping


def site(bits: int, *, signed: bool, narrow_range: bool, clipping: float = 1.5) -> SiteValues:
    form = make_clipping("linear", torch.tensor(clipping), 8)
    integers = IntegerFormat.plain(signed=signed, narrow_range=narrow_range)
    return SiteValues(LearnedClippingQuantizer(form, integers, bits), 0)


@given(
    bits=st.integers(1, 8),
    signed=st.booleans(),
    narrow_range=st.booleans(),
    values=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50),
)
def test_codes_and_rounding_are_the_quantizer_bit_for_bit(
    bits: int, signed: bool, narrow_range: bool, values: list[float]
) -> None:
    quantizer = site(bits, signed=signed, narrow_range=narrow_range)
    x = torch.tensor(values)
    expected = quantizer.quantizer(x)[0].detach()
    numbers = (quantizer.scale(), quantizer.low(), quantizer.high(), quantizer.is_bipolar())
    codes = encode(x, *numbers)
    assert codes.dtype == torch.uint8
    assert torch.equal(decode(codes, quantizer.scale(), quantizer.low()), expected + 0.0)
    assert torch.equal(round_to_scale(x, *numbers) + 0.0, expected + 0.0)
    assert torch.equal(quantizer.quantized(x), expected)
    assert float(decode(torch.tensor(quantizer.zero_point()), quantizer.scale(), quantizer.low())) == 0.0


def test_numbers_follow_the_width_and_are_kept_until_the_weights_change() -> None:
    quantizer = site(4, signed=True, narrow_range=False)
    four = quantizer.scale()
    quantizer.quantizer.width.bits = 8
    assert quantizer.scale() == four * 8 / 128
    quantizer.quantizer.width.bits = 4
    assert quantizer.scale() is four
    with torch.no_grad():
        for parameter in quantizer.quantizer.parameters():
            parameter.mul_(2)
    assert quantizer.scale() is four
    quantizer.forget()
    assert quantizer.scale() == pytest.approx(2 * float(four))
    assert quantizer.scale_number() == pytest.approx(2 * float(four))
