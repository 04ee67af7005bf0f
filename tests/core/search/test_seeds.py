"""Runs of several seeds from Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest

from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.search import RecordedRun, RecordedSeeds, SearchResult, over_seeds
from tests.core.search.small_problem import SEARCH, network, run, searchable

QUICK = replace(SEARCH, rounds=1, steps_per_round=1, epochs_per_round=1, pretrain_epochs=0)


def one(seed: int, folder: Path | None) -> SearchResult:
    return run(
        searchable(network(seed)),
        search=replace(QUICK, seed=seed),
        run_folder=folder,
        resume=folder is not None,
    )


def test_every_seed_has_a_run_of_its_own(tmp_path: Path) -> None:
    found = over_seeds(one, seeds=2, first=3, run_folder=tmp_path)
    assert found.seeds == (3, 4)
    metrics = [result.metric for result in found.results]
    assert found.mean == pytest.approx(sum(metrics) / 2) and found.spread == pytest.approx(stdev(metrics))
    assert [RecordedRun.load(tmp_path / f"seed-{seed}").summary["metric"] for seed in (3, 4)] == metrics  # type: ignore[index]
    recorded = RecordedSeeds.load(tmp_path)
    assert [run.path.name for run in recorded.runs] == ["seed-3", "seed-4"]
    assert recorded.middle.summary is not None and recorded.middle.summary["metric"] == min(metrics)
    again = over_seeds(one, seeds=2, first=3, run_folder=tmp_path)
    assert [result.metric for result in again.results] == metrics
    assert str(found).startswith("SeedResults(metric=") and "over 2 seeds" in str(found)


def test_without_a_folder_nothing_is_kept() -> None:
    assert over_seeds(one, seeds=1).spread == 0.0


@pytest.mark.parametrize("seeds", [0, True, 1.5])
def test_a_number_of_seeds_that_is_none(seeds: int) -> None:
    with pytest.raises(ConfigurationError, match="`seeds` must be a whole number of at least 1; got"):
        over_seeds(one, seeds=seeds)


def test_a_folder_without_seeds(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no runs of several seeds"):
        RecordedSeeds.load(tmp_path)
