"""What charts show is what the folder holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gfb_brevitas import RecordedRun
from gfb_brevitas.profile import QuantizerInfo
from gfb_brevitas.quantities import quantity
from gfb_brevitas.search import EvaluatedCandidates
from gfb_integrations.plots import comparison
from gfb_integrations.plots.data import (
    BitsPerLayer,
    Clipping,
    Comparison,
    Convergence,
    Front,
    LayerCosts,
    ResourcesPerLayer,
    Sensitivity,
    Training,
)
from gfb_integrations.plots.data.widths import labels
from tests.integrations.recorded_runs import HOSTILE, KINDS, MANY

ALL = (
    *(BitsPerLayer, Clipping, Comparison, Convergence, Front, LayerCosts, ResourcesPerLayer, Sensitivity),
    Training,
)
Folder = Callable[[str], Path]


@pytest.fixture
def ended(run_folder: Folder) -> RecordedRun:
    return RecordedRun.load(run_folder("ended"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_run_is_described_or_it_is_said_why_not(run_folder: Folder, kind: str) -> None:
    run = RecordedRun.load(run_folder(kind))
    for chart in ALL:
        data = chart(run=run)
        if data.missing is not None:
            assert data.missing.endswith(".")
            continue
        table = data.table()
        assert data.description().endswith(".")
        assert table.rows and {len(row) for row in table.rows} == {len(table.columns)} == {len(table.numeric)}


@pytest.mark.parametrize(
    "kind, missing",
    [
        ("ended", set()),
        ("hostile", {Comparison}),
        ("single", {Comparison}),
        ("under_way", {Comparison, Clipping, ResourcesPerLayer}),
        ("without_budgets", {Comparison, ResourcesPerLayer}),
        ("on_a_board", {Comparison}),
        ("given", {Comparison, Convergence, Front, Sensitivity}),
    ],
)
def test_what_a_run_has_nothing_of_is_missing(run_folder: Folder, kind: str, missing: set[type]) -> None:
    run = RecordedRun.load(run_folder(kind))
    assert {chart for chart in ALL if chart(run=run).missing is not None} == missing


def test_widths_are_those_of_the_allocation_and_of_a_run_under_way_the_last_ones(
    ended: RecordedRun, run_folder: Folder
) -> None:
    assert ended.allocation is not None
    assert {row[0]: row[2] for row in BitsPerLayer(run=ended).table().rows} == dict(ended.allocation)
    running = RecordedRun.load(run_folder("under_way"))
    last = running.history.rounds[-1].allocation
    assert {row[0]: row[2] for row in BitsPerLayer(run=running).table().rows} == dict(last)


def test_tied_quantizers_are_named(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("ended"))
    tied = replace(run, quantizers=tuple(replace(q, tie_group="all") for q in run.quantizers))
    rows = BitsPerLayer(run=tied).table().rows
    names = [q.name for q in run.quantizers]
    assert [row[-1] for row in rows] == [", ".join(n for n in names if n != own) for own in names]


def test_the_front_is_what_nothing_else_beats(ended: RecordedRun) -> None:
    data = Front(run=ended)
    for place, axis in enumerate(data.axes):
        assert axis.name == ended.budgets[place].name
        front = set(data.front(axis).tolist())
        assert front
        for point in front:
            no_dearer = np.delete(data.losses, point)[np.delete(axis.costs, point) <= axis.costs[point]]
            assert (no_dearer >= data.losses[point]).all()
        for point in set(range(len(data.losses))) - front:
            no_dearer = [other for other in front if axis.costs[other] <= axis.costs[point]]
            assert any(data.losses[other] <= data.losses[point] for other in no_dearer)


def test_feasible_points_keep_every_budget(ended: RecordedRun) -> None:
    data = Front(run=ended)
    costs = np.concatenate([step.costs for step in ended.candidates])
    limits = np.array([budget.limit for budget in ended.budgets])
    assert data.feasible.tolist() == (costs <= limits * (1 + 1e-9)).all(axis=1).tolist()
    assert {point.step for point in data.chosen} == set(data.step_names)


def test_points_of_large_runs_are_thinned_but_never_the_front(ended: RecordedRun) -> None:
    rng = np.random.default_rng(0)
    size = 5000
    step = EvaluatedCandidates(
        round=1,
        step=1,
        generation=np.ones(size, dtype=np.int64),
        bits=rng.integers(1, 9, (size, len(ended.quantizers))),
        losses=rng.random(size),
        costs=rng.random((size, len(ended.budgets))),
        sensitivity=None,
    )
    run = replace(ended)
    run.__dict__["candidates"] = (step,)
    data = Front(run=run)
    for axis in data.axes:
        drawn = data.thinned(axis)
        assert len(drawn) < 3100 and set(data.front(axis)) <= set(drawn)
    assert "taken at random" in data.description()


def test_without_budgets_losses_stand_against_the_size_of_the_weights(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("without_budgets"))
    (axis,) = Front(run=run).axes
    sizes = [q.elements * (q.kind == "weight") for q in run.quantizers]
    bits = np.concatenate([step.bits for step in run.candidates])
    assert axis.limit is None and axis.name == "weight_bits"
    assert axis.costs.tolist() == (bits @ sizes).tolist()
    assert axis.at_uniform_bits[3] == 3 * sum(sizes)


def test_losses_that_are_not_finite_are_counted_and_left_out(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("not_finite"))
    losses = np.concatenate([step.losses for step in run.candidates])
    data = Front(run=run)
    missing = int((~np.isfinite(losses)).sum())
    assert 0 < missing < len(losses) and len(data.losses) == len(losses) - missing
    assert f"{missing} of them had no finite loss" in data.description()


def test_convergence_counts_evaluations_over_all_steps(ended: RecordedRun) -> None:
    steps = Convergence(run=ended).steps
    assert [step.name for step in steps] == ["1.1", "1.2", "2.1", "2.2"]
    assert steps[-1].end == sum(step.evaluations for step in ended.history.steps)
    assert sum(len(step.generations) for step in steps) == len(ended.history.generations)
    for step, record in zip(steps, ended.history.steps, strict=True):
        weights = np.diff([step.begin, *step.evaluations])
        share = float(np.average(step.feasible_shares, weights=weights))
        assert share == pytest.approx(record.feasible_share)


def test_epochs_and_steps_stand_in_the_order_in_which_they_happened(ended: RecordedRun) -> None:
    data = Training(run=ended)
    # One epoch before, then twice two steps and two epochs.
    assert [step.begin for step in data.steps] == [1, 2, 5, 6]
    assert [epoch.position for epoch in data.epochs] == [1, 4, 5, 8, 9]
    assert data.end == 9
    best = data.best
    assert best is not None and ended.summary is not None
    assert best.record.epoch == ended.summary["best_epoch"]


def test_a_step_under_way_is_shaded_too(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("under_way"))
    assert [step.name for step in Training(run=run).steps] == ["1.1", "1.2", "2.1"]
    assert Training(run=run).end == 6


def test_clipping_values_are_those_of_the_folder(ended: RecordedRun) -> None:
    assert ended.clipping is not None and ended.allocation is not None
    for curve in Clipping(run=ended).curves:
        assert dict(zip(curve.bits, curve.values, strict=True)) == dict(ended.clipping[curve.name])
        assert curve.chosen == ended.allocation[curve.name]
        assert curve.chosen_value == ended.clipping[curve.name][curve.chosen]


def test_sensitivities_are_those_of_the_last_estimate(ended: RecordedRun) -> None:
    data = Sensitivity(run=ended)
    tables = [step.sensitivity for step in ended.candidates if step.sensitivity is not None]
    assert data.increases is not None
    assert np.nan_to_num(data.increases[:, 1:]) == pytest.approx(tables[-1][:, 1:])
    at_four_bits = [float(tables[-1][place, 4]) for place in data.ranking]
    assert at_four_bits == sorted(at_four_bits, reverse=True)


def test_without_an_estimate_the_candidates_tell_which_width_matters(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("without_budgets"))
    rng = np.random.default_rng(0)
    bits = rng.integers(1, 9, (300, len(run.quantizers)))
    losses = 1.0 / bits[:, 1] + 0.01 * rng.random(300)  # only the second one's width matters
    step = EvaluatedCandidates(
        round=1,
        step=1,
        generation=np.ones(300, dtype=np.int64),
        bits=bits,
        losses=losses,
        costs=np.zeros((300, 0)),
        sensitivity=None,
    )
    run.__dict__["candidates"] = (step,)
    data = Sensitivity(run=run)
    assert data.increases is None and data.ranking[0] == 1
    assert data.scores[1] > 5 * max(abs(data.scores[0]), abs(data.scores[2]))
    assert "hint" in data.description()


def test_bit_operations_are_products_of_both_widths(ended: RecordedRun) -> None:
    data = LayerCosts(run=ended)
    assert data.widths is not None
    by_name = {q.name: int(bits) for q, bits in zip(ended.quantizers, data.widths, strict=True)}
    expected = {
        "first": 8 * 12 * by_name["first.weight_quant"] * by_name["in.act_quant"],
        "last": 12 * 4 * by_name["last.weight_quant"] * by_name["relu.act_quant"],
    }
    assert {p.layer: p.bit_operations(data.widths) for p in data.products} == expected
    sizes = dict(zip((q.name for q in ended.quantizers), data.sizes(data.widths), strict=True))
    assert sizes["last.weight_quant"] == 48 * by_name["last.weight_quant"]


def test_layers_take_what_the_folder_says(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("on_a_board"))
    assert run.layer_costs is not None
    data = ResourcesPerLayer(run=run)
    lut = next(budget for budget in data.drawn if budget.name == "lut")
    assert dict(zip(data.layers, data.values(lut), strict=True)) == dict(lut.layers)
    assert (
        data.heading(lut)
        == f"lut: {quantity(lut.value)} of {quantity(lut.limit)} LUTs ({lut.value / lut.limit:.0%})"
    )
    most = data.layers[data.largest(lut)]
    assert lut.layers[most] == max(lut.layers.values())
    assert f"most in “{most}” ({lut.layers[most] / lut.value:.0%})" in data.description()
    assert data.about(lut, 0) == "0 LUTs: 0.0% of all, 0.0% of the budget"
    rows = {row[0]: row[1:] for row in data.table().rows}
    assert rows["the cost"] == tuple(budget.value for budget in data.budgets)
    assert rows[most][0] == lut.layers[most]


def test_what_no_layer_takes_is_said_and_not_drawn(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("on_a_board"))
    assert run.layer_costs is not None
    first, *others = run.layer_costs.budgets
    none = replace(first, name="uram", value=0.0, layers=dict.fromkeys(first.layers, 0.0))
    data = ResourcesPerLayer(run=replace(run, layer_costs=replace(run.layer_costs, budgets=(none, *others))))
    assert data.drawn == tuple(others) and "No layer takes any uram." in data.description()
    alone = replace(run, layer_costs=replace(run.layer_costs, budgets=(none,)))
    assert ResourcesPerLayer(run=alone).missing == "No layer takes anything of the budgets."


def test_layers_of_several_budgets_are_in_forward_order(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("on_a_board"))
    assert run.layer_costs is not None
    one, other = (
        replace(run.layer_costs.budgets[0], layers=dict.fromkeys(layers, 1.0))
        for layers in (("conv", "pool", "fc"), ("conv", "relu", "pool", "last", "fc"))
    )
    costs = replace(run.layer_costs, budgets=(one, other))
    data = ResourcesPerLayer(run=replace(run, layer_costs=costs))
    assert data.layers == ("conv", "relu", "pool", "last", "fc")
    assert data.values(one) == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_a_run_of_before_says_why_layers_are_missing(ended: RecordedRun) -> None:
    missing = ResourcesPerLayer(run=replace(ended, layer_costs=None)).missing
    assert missing == "The run ended before it was recorded what each layer takes of the budgets."


def test_labels_are_short_and_each_different(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("many"))
    assert len(run.quantizers) == MANY
    assert len(set(labels(run))) == MANY and max(map(len, labels(run))) <= 42
    hostile = labels(RecordedRun.load(run_folder("hostile")))
    assert hostile[0] == "in A" and hostile[1].startswith(HOSTILE[:10]) and hostile[1].endswith(" W")
    same = [replace(run.quantizers[0], name="x" * 80 + str(place)) for place in range(3)]
    assert len(set(labels(replace(run, quantizers=tuple[QuantizerInfo, ...](same))))) == 3


def test_rows_of_a_comparison_that_cannot_be_read_are_left_out(ended: RecordedRun) -> None:
    assert ended.summary is not None
    good = ended.summary["comparison"]
    run = replace(ended, summary={**ended.summary, "comparison": [*good, {"name": 3}, None, "row"]})
    models = Comparison(run=run).models
    assert [model.name for model in models] == ["uniform 4", "uniform 3", "searched, budget 4"]
    assert [model.searched for model in models] == [False, False, True]
    assert math.isclose(models[0].weight_kilobytes, 0.072)


def test_a_comparison_by_another_measure_is_named(ended: RecordedRun) -> None:
    assert ended.summary is not None
    rows = [{**row, "measured": "validation metric"} for row in ended.summary["comparison"]]
    shown = Comparison(run=replace(ended, summary={**ended.summary, "comparison": rows}))
    assert shown.description().startswith(
        "Validation metric by weight_size, of which 518.4 bits are allowed."
    )
    assert shown.table().columns[1] == "validation metric" and shown.table().rows[0][1] == "0.91"
    assert Comparison(run=ended).table().rows[0][1] == "91.00%"
    assert "test accuracy" not in str(comparison(shown.run).to_json())


def test_a_loss_is_not_drawn_against_a_cost_that_does_not_vary(ended: RecordedRun) -> None:
    steps = tuple(
        replace(step, costs=np.c_[step.costs[:, :1], np.ones(len(step.costs))]) for step in ended.candidates
    )
    run = replace(ended)
    object.__setattr__(run, "candidates", steps)
    front = Front(run=run)
    assert [axis.name for axis in front.axes] == [ended.budgets[0].name]
    assert f"it was the same for every candidate: {ended.budgets[1].name}." in front.description()


def test_a_layer_that_is_only_a_number_is_named_by_its_kind(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("without_budgets"))
    assert run.quantizers[0].name == "0.weight_quant"
    assert labels(run)[0] == "0 Linear 8->12 W"
    named = RecordedRun.load(run_folder("ended"))
    assert labels(named)[:2] == ("in A", "first W")
