"""What each layer takes of the budgets, in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.costs import BitOperations, CallableCost, WeightSize
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.files import sealed
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.search.layer_costs import layer_costs_document, read_layer_costs
from tests.core.search.small_problem import run, searchable


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(8, 12, bias=True, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.QuantLinear(12, 4, bias=True, weight_bit_width=4),
    )


def on_a_board() -> tuple[gfb.Budget, ...]:
    board = gfb.Budget.board("Pynq-Z1", fps=1_000_000, utilisation=0.5, latency_us=100.0)
    mean = CallableCost(name="mean", unit="bits", function=lambda a: sum(a.values()) / len(a), monotone=True)
    return (*board, gfb.Budget(cost=WeightSize(), limit=1e4), gfb.Budget(cost=mean, limit=8.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    run(searchable(network()), budgets=on_a_board(), run_folder=path)
    return path


def test_the_final_allocation_counts(folder: Path) -> None:
    recorded = RecordedRun.load(folder)
    found = recorded.layer_costs
    assert found is not None and recorded.summary is not None and recorded.allocation is not None
    names = [
        "lut",
        "bram_18k",
        "dsp",
        "cycles",
        "latency",
        "weight_size",
    ]  # not the mean, which cannot say it
    assert [budget.name for budget in found.budgets] == names
    costs = {row["name"]: row for row in recorded.summary["costs"]}
    for budget in found.budgets:
        assert (budget.value, budget.limit) == (costs[budget.name]["value"], costs[budget.name]["limit"])
        assert budget.unit == costs[budget.name]["unit"]
        parts = budget.layers.values()
        joined = max(parts) if budget.joined_by == "largest" else sum(parts)  # one path
        assert joined == pytest.approx(budget.value)
    sizes = found.budgets[-1].layers
    assert sizes == {
        name: n * recorded.allocation[f"{name}.weight_quant"] for name, n in (("1", 96), ("3", 48))
    }


def test_what_is_built_is_there_once(folder: Path) -> None:
    costs = RecordedRun.load(folder).layer_costs
    assert costs is not None
    (hardware,) = costs.hardware
    assert hardware["target"]["board"] == "Pynq-Z1" and hardware["target"]["fps"] == 1_000_000
    assert {"1", "3"} <= {layer["name"] for layer in hardware["layers"]}


def test_it_is_the_same_after_a_stop(folder: Path, tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    class Stopping(gfb.Callback):
        def on_round(self, record: Any) -> None:
            raise Stop

    path = tmp_path / "run"
    with pytest.raises(Stop):
        run(searchable(network()), budgets=on_a_board(), run_folder=path, callbacks=[Stopping()])
    assert RecordedRun.load(path).layer_costs is None and not (path / "layer_costs.json").exists()
    run(searchable(network()), budgets=on_a_board(), run_folder=path, resume=True)
    assert (path / "layer_costs.json").read_bytes() == (folder / "layer_costs.json").read_bytes()


def test_folders_of_before_have_none(folder: Path, tmp_path: Path) -> None:
    run(run_folder=tmp_path / "run")
    (tmp_path / "run" / "layer_costs.json").unlink()
    assert RecordedRun.load(tmp_path / "run").layer_costs is None


def test_without_budgets_no_layer_takes_anything(tmp_path: Path) -> None:
    run(run_folder=tmp_path / "run", budgets=[])
    costs = RecordedRun.load(tmp_path / "run").layer_costs
    assert costs is not None and costs.budgets == costs.hardware == ()


@dataclass(frozen=True, kw_only=True)
class OwnCost:
    """A cost of the user."""

    parts_of: Any
    joined_by: str = "sum"
    name: str = "own"
    unit: str = "bits"
    monotone: bool = True

    def bind(self, profile: Any) -> Any:
        return WeightSize().bind(profile)

    def parts(self, profile: Any, bits: Any) -> Mapping[str, float]:
        found: Mapping[str, float] = self.parts_of(profile, bits)
        return found


def test_costs_of_the_user_may_say_it_too(tmp_path: Path) -> None:
    cost = OwnCost(parts_of=lambda profile, bits: {"all of it": float(bits.sum())})
    run(run_folder=tmp_path / "run", budgets=[gfb.Budget(cost=cost, limit=1e6)])
    costs = RecordedRun.load(tmp_path / "run").layer_costs
    assert costs is not None and list(costs.budgets[0].layers) == ["all of it"]


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (OwnCost(parts_of=lambda profile, bits: [1.0]), "must return a number for each layer"),
        (OwnCost(parts_of=lambda profile, bits: {"a": "much"}), "must return a number for each layer"),
        (OwnCost(parts_of=lambda profile, bits: {"a": float("nan")}), "must be finite"),
        (OwnCost(parts_of=lambda profile, bits: {}, joined_by="product"), "must be one of sum, largest"),
    ],
)
def test_what_a_cost_does_wrong_is_found_before_the_run(cost: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(run_folder=tmp_path / "run", budgets=[gfb.Budget(cost=cost, limit=1e6)])
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=2),
        lambda d: d.pop("hardware"),
        lambda d: d["budgets"][0].update(joined_by="product"),
        lambda d: d["budgets"][0].update(layers=[1]),
        lambda d: d["budgets"][0].update(limit=None),
    ],
)
def test_documents_that_are_something_else(change: Any) -> None:
    space = searchable().space
    constraints = gfb.Constraints(space, [gfb.Budget(cost=BitOperations(), limit=1e9)])
    document = json.loads(json.dumps(sealed(layer_costs_document(constraints, space.bits(space.uniform(3))))))
    assert read_layer_costs(document).budgets[0].name == "bit_operations"
    change(document)
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        read_layer_costs(document)
