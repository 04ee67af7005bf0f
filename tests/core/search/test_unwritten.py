"""Trials that the storage did not take before the run ended or died are written when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from gfb_brevitas.search.trial_writer import TrialWriter
from tests.core.search.small_problem import run


class Down(optuna.storages.InMemoryStorage):
    """Takes trials only while it is up."""

    up = True

    def create_new_trial(self, *arguments: Any, **more: Any) -> int:
        if not self.up:
            raise OSError("connection refused")
        return super().create_new_trial(*arguments, **more)


class Stop(BaseException):
    """Stands for whatever ends a process."""


class At:
    """Takes the storage down at one generation, and ends the run at another."""

    def __init__(self, storage: Down, down: int, stop: int | None = None) -> None:
        self.storage, self.down, self.stop, self.seen = storage, down, stop, 0

    def on_generation(self, record: Any) -> None:
        self.seen += 1
        if self.seen == self.down:
            self.storage.up = False
        if self.seen == self.stop:
            raise Stop


def trials(storage: optuna.storages.BaseStorage) -> dict[str, Any]:
    names = sorted(optuna.get_all_study_names(storage))
    studies = {name: optuna.load_study(study_name=name, storage=storage) for name in names}
    return {name: [(t.number, t.params, t.value) for t in study.trials] for name, study in studies.items()}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, Any]:
    storage = optuna.storages.InMemoryStorage()
    run(storage=storage, run_folder=tmp_path / "whole" / "run")
    return trials(storage)


@pytest.mark.parametrize("stop", [None, 8], ids=["the run ended", "the run died in its third step"])
def test_a_resumed_run_brings_the_storage_up_to_date(
    tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stop: int | None
) -> None:
    monkeypatch.setattr(
        "gfb_brevitas.search.run_studies.TrialWriter", lambda *args: TrialWriter(*args, patience=0.0)
    )
    storage, folder = Down(), tmp_path / "run"
    if stop is None:
        run(storage=storage, run_folder=folder, callbacks=[At(storage, down=2)])
    else:
        with pytest.raises(Stop):
            run(storage=storage, run_folder=folder, callbacks=[At(storage, down=2, stop=stop)])
    assert trials(storage) != expected
    kept = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "unwritten.journal"))
    )
    assert "run/round-01/step-02" in optuna.get_all_study_names(kept)  # readable by Optuna itself
    storage.up = True
    run(storage=storage, run_folder=folder, resume=True)
    assert trials(storage) == expected
    assert not (folder / "unwritten.journal").exists()


def test_a_storage_that_works_leaves_no_file(tmp_path: Path) -> None:
    run(storage=optuna.storages.InMemoryStorage(), run_folder=tmp_path / "run")
    assert not (tmp_path / "run" / "unwritten.journal").exists()
