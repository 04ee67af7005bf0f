"""What holds for every cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.costs import (
    ActivationMemory,
    BitOperations,
    CallableCost,
    Cost,
    LatencyTable,
    LayeredCost,
    MeanActivationBits,
    MeanWeightBits,
    WeightSize,
)
from gfb_brevitas.profile import ModelProfile
from tests.core.costs.small_profiles import profiles, random_bits, two_layers


def _table(profile: ModelProfile) -> LatencyTable:
    entries = {(w, a): 0.1 * w * a + 0.7 * w for w in range(1, 33) for a in range(1, 33)}
    layers = dict.fromkeys([p.layer for p in profile.products], entries)
    return LatencyTable(name="latency", unit="us", layers=layers, constant=3.0)


COSTS = {
    "weight_size": lambda profile: WeightSize(),
    "mean_weight": lambda profile: MeanWeightBits(),
    "mean_weight_plain": lambda profile: MeanWeightBits(weighting="quantizers"),
    "mean_activation": lambda profile: MeanActivationBits(),
    "mean_activation_elements": lambda profile: MeanActivationBits(weighting="elements"),
    "bit_operations": lambda profile: BitOperations(),
    "memory": lambda profile: ActivationMemory(),
    "memory_largest": lambda profile: ActivationMemory(total="largest"),
    "table": _table,
    "callable": lambda profile: CallableCost(
        name="c", unit="", function=lambda a: sum(a.values()), monotone=True
    ),
    "callable_vectorized": lambda profile: CallableCost(
        name="c", unit="", function=lambda bits, profile: bits.sum(axis=1), vectorized=True, monotone=True
    ),
}
every_cost = pytest.mark.parametrize("make", COSTS.values(), ids=COSTS.keys())


@every_cost
@given(profile=profiles(), seed=st.integers(0, 1000))
def test_a_population_costs_what_its_members_cost_alone(make, profile, seed):
    cost = make(profile).bind(profile)
    bits = random_bits(profile, 7, seed)
    together = cost(bits)
    assert together.shape == (7,)
    assert together.dtype == np.float64
    np.testing.assert_array_equal(together, [cost(row[None, :])[0] for row in bits])


@every_cost
@given(profile=profiles(), seed=st.integers(0, 1000), data=st.data())
def test_no_cost_that_says_monotone_falls_when_a_width_rises(make, profile, seed, data):
    cost = make(profile)
    assert cost.monotone
    low = random_bits(profile, 1, seed)
    high = low.copy()
    high[0, data.draw(st.integers(0, len(profile) - 1))] += 1
    bound = cost.bind(profile)
    assert bound(high)[0] >= bound(low)[0]


LAYERED = ("weight_size", "bit_operations", "memory", "memory_largest", "table")


@pytest.mark.parametrize("name", LAYERED)
@given(profile=profiles(), seed=st.integers(0, 1000))
def test_what_layers_take_makes_up_the_cost(name, profile, seed):
    cost = COSTS[name](profile)
    bits = random_bits(profile, 1, seed)
    parts = list(cost.parts(profile, bits[0]).values())
    total = {"sum": sum, "largest": max}[cost.joined_by](parts)
    expected = cost.bind(profile)(bits)[0]
    assert total == (pytest.approx(expected) if name == "table" else expected)  # whole numbers but in tables


def test_what_belongs_to_no_layer_is_a_part_too():
    profile = two_layers()
    bits = random_bits(profile, 1)[0]
    assert WeightSize().parts(profile, bits) == {
        "conv": 10 * bits[0],
        "fc": 30 * bits[3],
        "(no layer)": 64,
    }
    assert _table(profile).parts(profile, bits)["(no layer)"] == 3.0
    assert list(BitOperations().parts(profile, bits)) == ["conv", "fc"]


@every_cost
def test_only_costs_that_say_what_layers_take_are_layered(make):
    cost = make(two_layers())
    names = ("weight_size", "bit_operations", "activation_memory", "latency")
    assert isinstance(cost, LayeredCost) is (cost.name in names)


@every_cost
def test_an_empty_population_costs_nothing(make):
    profile = two_layers()
    assert make(profile).bind(profile)(np.empty((0, 4), dtype=np.int64)).shape == (0,)


@every_cost
def test_costs_satisfy_the_protocol_and_leave_the_bits_alone(make):
    profile = two_layers()
    cost = make(profile)
    assert isinstance(cost, Cost)
    bits = random_bits(profile, 3)
    before = bits.copy()
    cost.bind(profile)(bits)
    np.testing.assert_array_equal(bits, before)


@every_cost
def test_costs_are_equal_and_hash_by_their_settings(make):
    profile = two_layers()
    one, other = make(profile), make(profile)
    if not isinstance(one, CallableCost):
        assert one == other
    assert hash(one) == hash(one)
