from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gfb_brevitas.costs import (
    ActivationMemory,
    LatencyTable,
    MeanActivationBits,
    WeightSize,
    cost_from_name,
    register_cost,
    registered_costs,
    registry,
)
from gfb_brevitas.errors import ConfigurationError
from tests.core.costs.small_profiles import two_layers


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


@dataclass(frozen=True, kw_only=True)
class WidestWeight:
    name: str = "widest_weight"
    unit: str = "bits"
    monotone: bool = True
    scale: float = 1.0

    def bind(self, profile):
        columns = profile.columns("weight")
        return lambda bits: self.scale * bits[:, columns].max(axis=1)


def test_costs_by_name_take_their_options():
    assert cost_from_name("weight_size") == WeightSize()
    assert cost_from_name("weight_size", name="size") == WeightSize(name="size")
    assert cost_from_name("activation_memory", total="largest") == ActivationMemory(total="largest")
    assert cost_from_name("mean_activation_bits", weighting="elements") == MeanActivationBits(
        weighting="elements"
    )


def test_every_registered_cost_carries_its_own_name_by_default():
    fpga = {"fpga_resource", "fpga_cycles", "fpga_latency"}
    with_defaults = set(registered_costs()) - {"latency_table", *fpga}
    assert len(with_defaults) >= 5
    assert {cost_from_name(name).name for name in with_defaults} == with_defaults


def test_a_table_is_named_with_its_file(tmp_path):
    table = LatencyTable(name="energy", unit="uJ", layers={"conv": {(1, 1): 2.0}})
    table.save(tmp_path / "table.json")
    assert cost_from_name("latency_table", path=tmp_path / "table.json") == table


def test_a_third_party_registers_a_cost():
    assert register_cost("widest_weight", WidestWeight) is WidestWeight
    cost = cost_from_name("widest_weight", scale=2.0)
    assert cost.bind(two_layers())(np.array([[2, 8, 8, 3]])).tolist() == [6.0]
    assert "widest_weight" in registered_costs()


def test_registering_the_same_factory_again_is_harmless_and_another_is_refused():
    register_cost("weight_size", WeightSize)
    with pytest.raises(ConfigurationError, match="'weight_size' is already registered"):
        register_cost("weight_size", WidestWeight)
    assert cost_from_name("weight_size") == WeightSize()


def test_unknown_names_and_options_are_refused_with_what_there_is():
    with pytest.raises(ConfigurationError, match="no cost 'size'.*bit_operations.*weight_size"):
        cost_from_name("size")
    with pytest.raises(ConfigurationError, match="'weight_size' takes .*name.*'mb'"):
        cost_from_name("weight_size", mb=True)


def test_errors_inside_a_factory_are_not_hidden():
    def broken():
        raise TypeError("inside")

    register_cost("broken", broken)
    with pytest.raises(TypeError, match="inside"):
        cost_from_name("broken")


@pytest.mark.parametrize("name", ["", None])
def test_a_cost_needs_a_name(name):
    with pytest.raises(ConfigurationError, match="non-empty"):
        register_cost(name, WeightSize)


def test_a_factory_must_be_callable():
    with pytest.raises(ConfigurationError, match="callable"):
        register_cost("object", WeightSize())


def test_costs_of_a_board_take_its_options_by_name():
    cost = cost_from_name("fpga_resource", resource="dsp", board="Pynq-Z1", fps=1000)
    assert (cost.name, cost.target.board, cost.target.fps) == ("dsp", "Pynq-Z1", 1000)
    assert cost_from_name("fpga_latency", board="U250").unit == "us"
    with pytest.raises(ConfigurationError, match="board"):
        cost_from_name("fpga_cycles")
    with pytest.raises(ConfigurationError, match="There is|one of"):
        cost_from_name("fpga_cycles", board="Arty")
