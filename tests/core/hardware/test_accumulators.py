"""Accumulators hold every sum, and no bit more than some sum needs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.hardware import DataTypes
from gfb_brevitas.hardware.accumulators import (
    accumulator_types,
    data_type_bound,
    sum_types,
    threshold_types,
    whole_bytes,
)


def _holds(bits: int, signed: bool, value: float) -> bool:
    return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) if signed else 0 <= value < 2**bits


@given(
    low=st.integers(-(2**40), 2**40),
    extent=st.integers(0, 2**40),
)
def test_a_type_of_a_range_is_the_narrowest(low, extent):
    high = low + extent
    found = sum_types(low, high)
    bits, signed = int(found.bits), low < 0
    assert _holds(bits, signed, low) and _holds(bits, signed, high)
    assert bits == 1 or not (_holds(bits - 1, signed, low) and _holds(bits - 1, signed, high))


@given(
    weight_bits=st.integers(2, 4),
    input_bits=st.integers(1, 3),
    narrow=st.booleans(),
    signed=st.booleans(),
    terms=st.integers(1, 3),
)
def test_accumulators_hold_every_dot_product(weight_bits, input_bits, narrow, signed, terms):
    weights = DataTypes.signed(weight_bits, narrow=narrow)
    inputs = DataTypes.signed(input_bits) if signed else DataTypes.unsigned(input_bits)
    products = [w * x for w in (weights.low, weights.high) for x in (inputs.low, inputs.high)]
    sums = [sum(terms_) for terms_ in itertools.product(products, repeat=terms)]
    found = accumulator_types(terms, weights, inputs)
    assert (float(found.low), float(found.high)) == (min(sums), max(sums))
    assert int(found.bits) == int(sum_types(min(sums), max(sums)).bits)


@given(terms=st.integers(1, 10_000), weight_bits=st.integers(2, 8), input_bits=st.integers(1, 8))
def test_the_bound_by_widths_is_never_narrower(terms, weight_bits, input_bits):
    weights, inputs = DataTypes.signed(weight_bits, narrow=True), DataTypes.unsigned(input_bits)
    bound = data_type_bound(terms, weights.bits, inputs.bits, inputs.is_signed)
    assert accumulator_types(terms, weights, inputs).bits <= bound


@pytest.mark.parametrize(
    "name, types",
    [
        ("INT4", DataTypes.signed(4)),
        ("UINT8", DataTypes.unsigned(8)),
        ("BIPOLAR", DataTypes.bipolar()),
        ("FLOAT32", DataTypes.float32()),
    ],
)
def test_finns_names(name, types):
    named = DataTypes.named([name])
    assert (named.bits[0], named.low[0], named.high[0]) == (types.bits, types.low, types.high)


@pytest.mark.parametrize(
    "low, high, bits",
    [(-1, 1, 2), (-1, 0, 1), (-7, 7, 4), (-8, 7, 4), (-8, 8, 5), (0, 0, 1), (0, 1, 1), (0, 8, 4)],
)
def test_weights_and_thresholds_take_the_narrowest_type(low, high, bits):
    assert DataTypes.of_range(low, high).bits == bits


def test_thresholds_reach_one_above_their_inputs():
    assert threshold_types(DataTypes.unsigned(8)).bits == 9
    assert threshold_types(DataTypes.signed(8)).bits == 9


def test_narrow_types_leave_out_the_smallest_value():
    assert DataTypes.signed([2, 8], narrow=True).is_narrow.all()
    assert not DataTypes.signed([2, 8]).is_narrow.any()
    np.testing.assert_array_equal(DataTypes.signed([2, 8], narrow=True).low, [-1, -127])


def test_last_accumulators_are_whole_bytes():
    assert whole_bytes([1, 8, 9, 17]).tolist() == [8, 8, 16, 24]
