from __future__ import annotations

import pytest
import torch
from brevitas.function.ops import max_int, min_int

from gfb_brevitas.quant import IntegerFormat

PLAIN = [IntegerFormat.plain(signed=s, narrow_range=n) for s in (True, False) for n in (True, False)]


@pytest.mark.parametrize("bits", range(2, 33))
@pytest.mark.parametrize("integers", PLAIN, ids=str)
def test_ranges_are_those_of_brevitas(integers: IntegerFormat, bits: int):
    width = torch.tensor(bits, dtype=torch.float64)
    smallest = int(min_int(integers.signed, integers.narrow_range, width))
    largest = int(max_int(integers.signed, integers.narrow_range, width))
    assert (integers.smallest(bits), integers.largest(bits)) == (smallest, largest)
    # Brevitas maps the clipping value to the end of the range that is farther from zero.
    assert integers.threshold(bits) == max(-smallest, largest)


@pytest.mark.parametrize("narrow_range", [True, False])
def test_one_bit_has_two_values(narrow_range: bool):
    signed = IntegerFormat.plain(signed=True, narrow_range=narrow_range)
    unsigned = IntegerFormat.plain(signed=False, narrow_range=narrow_range)
    assert (signed.smallest(1), signed.largest(1), signed.threshold(1)) == (-1, 1, 1)
    assert (unsigned.smallest(1), unsigned.largest(1), unsigned.threshold(1)) == (0, 1, 1)
    assert signed.is_bipolar(1) and not signed.is_bipolar(2) and not unsigned.is_bipolar(1)


def test_a_borrowed_scale_has_the_threshold_of_its_owner():
    integers = IntegerFormat(signed=False, narrow_range=False, scale_signed=True, scale_narrow_range=True)
    assert (integers.smallest(4), integers.largest(4), integers.threshold(4)) == (0, 15, 7)
