from __future__ import annotations

import json
import re

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import nn

from gfb_brevitas import Budget, make_searchable
from gfb_brevitas.constraints import Constraints
from gfb_brevitas.costs import HardwareCost, LayeredCost, WeightSize
from gfb_brevitas.dataflow import (
    Accelerator,
    FoldedLayer,
    FpgaCycles,
    FpgaLatency,
    FpgaResource,
    Target,
    folded_layers,
)
from gfb_brevitas.dataflow.costs import _AcceleratorCost
from gfb_brevitas.errors import ConfigurationError, InfeasibleBudgetError

TARGET = Target(board="Pynq-Z1", fps=10_000)
RESOURCES = ("lut", "bram_18k", "uram", "dsp")
COSTS = [
    *(FpgaResource(resource=name, target=TARGET) for name in RESOURCES),
    FpgaCycles(target=TARGET),
    FpgaLatency(target=TARGET),
]


def random_bits(network, count=16):
    return np.random.default_rng(1).integers(2, 9, (count, len(network.profile)))


def test_costs_are_the_accelerators_numbers(network):
    bits = random_bits(network)
    expected = Accelerator.of(network.profile, TARGET).cost(bits)
    found = [cost.bind(network.profile)(bits).tolist() for cost in COSTS]
    assert found[:4] == [getattr(expected.resources, name).tolist() for name in RESOURCES]
    assert found[4] == expected.cycles.tolist()
    assert found[5] == (expected.latency_cycles / 100).tolist()


def test_costs_of_one_target_share_the_work(plain_network, monkeypatch):
    calls = []
    original = Accelerator.cost
    monkeypatch.setattr(Accelerator, "cost", lambda self, bits: (calls.append(1), original(self, bits))[1])
    bound = [cost.bind(plain_network.profile) for cost in COSTS]
    first, second = random_bits(plain_network), random_bits(plain_network)[::-1].copy()
    for bits in (first, second):
        for cost in bound:
            cost(bits)
    assert len(calls) == 2


def test_a_population_that_is_changed_in_place_is_priced_again(plain_network):
    cost = COSTS[0].bind(plain_network.profile)
    bits = np.full((1, len(plain_network.profile)), 2)
    low = cost(bits)[0]
    bits[:] = 8
    assert cost(bits)[0] > low


@pytest.mark.parametrize("cost", COSTS[:5], ids=lambda c: c.name)
def test_parts_make_up_the_cost(network, cost):
    bits = random_bits(network, 1)
    parts = cost.parts(network.profile, bits[0]).values()
    total = {"sum": sum, "largest": max}[cost.joined_by](parts)
    assert total == cost.bind(network.profile)(bits)[0]


def test_parts_of_the_latency_are_microseconds(plain_network):
    bits = random_bits(plain_network, 1)
    # One path: the layers' times add up.
    parts = FpgaLatency(target=TARGET).parts(plain_network.profile, bits[0])
    assert sum(parts.values()) == pytest.approx(COSTS[5].bind(plain_network.profile)(bits)[0])


def test_costs_of_one_target_say_the_same_hardware(network):
    bits = random_bits(network, 1)[0]
    built = [cost.hardware(network.profile, bits) for cost in COSTS]
    assert all(isinstance(cost, LayeredCost) and isinstance(cost, HardwareCost) for cost in COSTS)
    assert built[1:] == built[:-1] and json.loads(json.dumps(built[0])) == built[0]
    accelerator = Accelerator.of(network.profile, TARGET)
    layers = tuple(FoldedLayer.from_dict(layer) for layer in built[0]["layers"])
    assert layers == folded_layers(accelerator, bits) and len(layers) == len(accelerator.graph)
    assert Target(**built[0]["target"]) == TARGET


def test_a_number_of_an_accelerator_must_be_said():
    class Nameless(_AcceleratorCost):
        """Without a value."""

    with pytest.raises(TypeError, match="abstract"):
        Nameless(target=TARGET)


def test_a_board_is_one_budget_for_each_of_its_limits():
    budgets = Budget.board("ZCU104", fps=1000, clock_mhz=200.0, utilisation=0.5, latency_us=80.0)
    assert {b.name: b.limit for b in budgets} == {
        "lut": 115_000.0,
        "bram_18k": 305.0,
        "uram": 46.0,
        "dsp": 864.0,
        "cycles": 200_000.0,
        "latency": 80.0,
    }


@pytest.mark.parametrize("utilisation", [0, 1.1, "most"])
def test_utilisation_is_a_share(utilisation):
    with pytest.raises(ConfigurationError, match="utilisation"):
        Budget.board("Pynq-Z1", utilisation=utilisation)


def test_board_budgets_stand_beside_others(network):
    budgets = [*Budget.board("Pynq-Z1", fps=1000), Budget(cost=WeightSize(), limit=1e9)]
    constraints = Constraints(network.space, budgets)
    constraints.check_reachable()
    assert constraints.feasible(np.full((1, len(network.profile)), 4))[0]


def test_a_board_that_is_too_small_says_what_could_be_reached_and_where_most_of_it_goes(plain_network):
    budgets = Budget.board("Pynq-Z1", fps=100_000, utilisation=0.02)
    with pytest.raises(InfeasibleBudgetError) as caught:
        Constraints(plain_network.space, budgets).check_reachable()
    message = str(caught.value)
    assert "lut CANNOT BE MET: must be at most 1064 LUTs" in message
    assert "The most of it: " in message
    assert message.endswith("A larger board or a lower frame rate makes room, too.")


def test_a_frame_rate_that_no_folding_reaches_names_the_slowest_layer(plain_network):
    with pytest.raises(InfeasibleBudgetError, match=r"cycles CANNOT BE MET.*The most of it: \d+ cycles in '"):
        Constraints(plain_network.space, Budget.board("U250", fps=10e6)).check_reachable()


def test_there_are_four_resources():
    with pytest.raises(ConfigurationError, match="lut, bram_18k, uram, dsp"):
        FpgaResource(resource="ff", target=TARGET)


def test_a_frame_rate_above_the_clock_is_refused():
    with pytest.raises(ConfigurationError, match=r"at most 100,000,000 at 100 MHz, one sample per clock"):
        Budget.board("Pynq-Z1", fps=1e9)


def test_a_frame_rate_that_no_layer_reaches_is_told_as_one(plain_network):
    with pytest.raises(InfeasibleBudgetError) as caught:
        Constraints(plain_network.space, Budget.board("U250", fps=5e7)).check_reachable()
    message = str(caught.value)
    assert re.search(
        r"cycles CANNOT BE MET: must be at most 2 cycles per sample \(50,000,000 samples/s", message
    )
    assert "whatever the widths" in message and "A faster clock" in message
    assert "larger board or a lower frame rate" not in message


def test_a_latency_that_is_too_short_wants_more_parallel_layers(plain_network):
    with pytest.raises(InfeasibleBudgetError, match=r"latency CANNOT BE MET") as caught:
        Constraints(plain_network.space, Budget.board("U250", fps=10, latency_us=1)).check_reachable()
    assert "A higher `fps` makes the layers more parallel" in str(caught.value)
    assert "allow smaller widths" not in str(caught.value)


def test_cycles_that_depend_on_widths_are_told_with_them():
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(192, 1024, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(1024, 10, bias=False),
    )
    space = make_searchable(model, torch.zeros(1, 192)).space
    with pytest.raises(InfeasibleBudgetError) as caught:
        Constraints(space, Budget.board("U250", fps=90e6)).check_reachable()
    message = str(caught.value)
    assert "cycles CANNOT BE MET" in message and "whatever the widths" not in message
    assert "allow smaller widths" in message


def test_a_network_that_ends_in_a_convolution_has_a_folding():
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(1, 8, 3, padding=1, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantConv2d(8, 2, 1, bias=True),
    )
    searchable = make_searchable(model, torch.zeros(1, 1, 6, 6))
    for folding in ("cheapest", "finn"):
        target = Target(board="Pynq-Z1", fps=100_000, folding=folding)
        cost = Accelerator.of(searchable.profile, target).cost(np.full((3, 4), 4))
        assert cost.cycles.tolist() == [cost.cycles[0]] * 3
        assert 100e6 / cost.cycles[0] >= 100_000
