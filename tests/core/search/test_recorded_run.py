"""Reading a run's folder without its model: complete, under way, damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.files import sealed, unsealed
from gfb_brevitas.rules import Fix, Tie
from gfb_brevitas.search import Callback, EpochRecord, RecordedRun, SearchResult
from tests.core.search.small_problem import budgets, run, searchable


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    rules = (Fix("0.*", 5), Tie(by=lambda q: "both" if q.name.startswith(("2", "4")) else None))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return run(searchable(rules=rules), run_folder=folder)


def test_holds_what_the_result_holds(ended: SearchResult) -> None:
    recorded = RecordedRun.load(ended.run_folder or "")
    assert recorded.history == ended.history
    assert recorded.allocation == ended.allocation
    assert recorded.summary is not None and recorded.summary["metric"] == ended.metric
    assert recorded.configuration["search"]["rounds"] == 2
    assert recorded.versions["torch"]


def test_quantizers_have_the_ranges_and_ties_of_the_search(ended: SearchResult) -> None:
    quantizers = {info.name: info for info in RecordedRun.load(ended.run_folder or "").quantizers}
    profile = {info.name: info for info in ended.searchable.profile}
    assert list(quantizers) == list(profile)
    fixed = quantizers["0.weight_quant"]
    assert (fixed.min_bits, fixed.max_bits) == (5, 5)
    assert quantizers["2.act_quant"].tie_group == quantizers["4.weight_quant"].tie_group
    assert quantizers["0.weight_quant"].elements == profile["0.weight_quant"].elements


def test_budgets_have_their_costs_at_uniform_widths(ended: SearchResult) -> None:
    space = ended.searchable.space
    constraints = Constraints(space, budgets())
    for j, budget in enumerate(RecordedRun.load(ended.run_folder or "").budgets):
        assert budget.limit == constraints.limits[j]
        assert budget.at_uniform_bits[3] == constraints.costs([space.bits(space.uniform(3))])[0, j]


def test_candidates_have_their_costs(ended: SearchResult) -> None:
    constraints = Constraints(ended.searchable.space, budgets())
    steps = RecordedRun.load(ended.run_folder or "").candidates
    assert [(step.round, step.step) for step in steps] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for step, record in zip(steps, ended.history.steps, strict=True):
        assert len(step.bits) == len(step.losses) == len(step.generation) == record.evaluations
        np.testing.assert_allclose(step.costs, constraints.costs(step.bits))
        assert step.sensitivity is not None and len(step.sensitivity) == step.bits.shape[1]
        best = min(g.best_feasible_loss for g in ended.history.generations if g.round == step.round)
        assert best <= np.nanmin(step.losses[constraints.feasible(step.bits)]) + 1e-12


def test_clipping_values_are_those_of_the_model(ended: SearchResult) -> None:
    clipping = RecordedRun.load(ended.run_folder or "").clipping
    values = ended.searchable.clipping_values()
    assert clipping is not None and set(clipping) == set(values)
    assert clipping["2.act_quant"][3] == pytest.approx(float(values["2.act_quant"][3].mean()))


def test_a_run_can_be_read_while_it_runs(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Look(Callback):
        def on_epoch(self, record: EpochRecord) -> None:
            view = RecordedRun.load(tmp_path / "run")
            assert view.summary is None and view.allocation is None
            seen.append((len(view.history.epochs), len(view.candidates)))

    run(run_folder=tmp_path / "run", callbacks=[Look()])
    assert seen == [(1, 0), (2, 2), (3, 2), (4, 4), (5, 4)]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run. Give the folder of one"):
        RecordedRun.load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "profile.json", "summary.json", "allocation.json", "clipping.json"),
        "layer_costs.json",
    ],
)
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"format": "another"}', "\x00\xff"])
def test_damaged_files_are_named(ended: SearchResult, tmp_path: Path, name: str, content: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended.run_folder or "", folder)
    (folder / name).write_text(content, encoding="latin-1")
    if name == "clipping.json" and content in ("{}", '{"format": "another"}'):
        content = '{"0.weight_quant": 5}'
        (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        RecordedRun.load(folder)


@pytest.mark.parametrize(
    "change",
    [lambda line: line.pop("costs"), lambda line: line["bits"].pop(), lambda line: line.update(losses=3)],
)
def test_damaged_candidates_are_named(ended: SearchResult, tmp_path: Path, change: Any) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended.run_folder or "", folder)
    file = folder / "generations" / "round-01" / "step-01.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines[-1])
    file.write_text("".join(f"{json.dumps(sealed(line))}\n" for line in lines))
    with pytest.raises(CheckpointError, match=r"step-01\.jsonl"):
        _ = RecordedRun.load(folder).candidates


@pytest.mark.parametrize("name", ["config.json", "profile.json", "summary.json", "layer_costs.json"])
def test_a_file_of_another_release_is_not_called_damaged(
    ended: SearchResult, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended.run_folder or "", folder)
    document = unsealed(json.loads((folder / name).read_text()))
    (folder / name).write_text(json.dumps(sealed({**document, "version": 2})))
    with pytest.raises(CheckpointError, match=f"{name}' is of version 2 of its format") as raised:
        RecordedRun.load(folder)
    assert "damaged" not in str(raised.value)
