"""Searches in several threads of one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import optuna
import pytest

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.search.storages import opened_storage
from tests.core.search.small_problem import run


def test_two_searches_at_once(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/studies.db"
    names = ["left", "right"]
    with ThreadPoolExecutor(2) as threads:
        started = [
            threads.submit(run, run_folder=tmp_path / name, name=name, storage=place) for name in names
        ]
        results = [future.result() for future in started]
    for name, result in zip(names, results, strict=True):
        recorded = RecordedRun.load(tmp_path / name)
        assert recorded.allocation == result.allocation
        assert len(recorded.history.rounds) == 2
        study = optuna.load_study(study_name=name, storage=place)
        assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE", "COMPLETE"]
        for step in recorded.candidates:
            steps = optuna.load_study(
                study_name=f"{name}/round-{step.round:02d}/step-{step.step:02d}", storage=place
            )
            assert len(steps.trials) == len(step.losses)


@pytest.mark.parametrize("attempt", range(3))
def test_a_new_database_is_opened_by_many_at_once(tmp_path: Path, attempt: int) -> None:
    together = Barrier(6, timeout=60)

    def opened(_: int) -> optuna.storages.BaseStorage | None:
        together.wait()
        return opened_storage(f"sqlite:///{tmp_path}/new.db")

    with ThreadPoolExecutor(6) as threads:
        storages = list(threads.map(opened, range(6)))
    assert storages[0] is not None and storages[1] is not None
    optuna.create_study(study_name="seen", storage=storages[0])
    assert optuna.get_all_study_names(storages[1]) == ["seen"]
