"""Runs whose process is killed, and runs of several processes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from gfb_brevitas.samplers import CmaSampler
from tests.forked_python import ForkedPython

SPACE = {
    "a": FloatDistribution(0.0, 3.0),
    "b": FloatDistribution(1e-3, 1.0, log=True),
    "k": IntDistribution(1, 8),
}

# What the processes run: the functions of this file, up to a trial that ends the process.
_CHILD = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("resume", {file!r})
resume = importlib.util.module_from_spec(spec)
spec.loader.exec_module(resume)
resume.run_until_killed(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
"""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_storage(kind: str, folder: str) -> BaseStorage:
    if kind == "journal":
        return JournalStorage(JournalFileBackend(os.path.join(folder, "journal.log")))
    return RDBStorage(f"sqlite:///{os.path.join(folder, 'study.db')}")


def make_sampler() -> CmaSampler:
    return CmaSampler(search_space=SPACE, step_size=0.4, seed=7)


def objective(trial: Trial) -> float:
    a = trial.suggest_float("a", 0.0, 3.0)
    b = trial.suggest_float("b", 1e-3, 1.0, log=True)
    k = trial.suggest_int("k", 1, 8)
    trial.set_user_attr("kind", trial.suggest_categorical("kind", ["x", "y"]))
    return (a - 2) ** 2 + 10 * (b - 0.1) ** 2 + (k - 3) ** 2


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(kind: str, folder: str, number: int, moment: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=make_storage(kind, folder), study_name="s", sampler=make_sampler(), load_if_exists=True
    )

    def fatal(trial: Trial) -> float:
        value = objective(trial)
        if moment == "within" and trial.number == number:
            _die()
        return value

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if moment == "after" and trial.number == number:
            _die()

    study.optimize(fatal, n_trials=None if moment in ("after", "within") else number, callbacks=[after])


def _start(kind: str, folder: Path, number: int, moment: str) -> ForkedPython:
    return ForkedPython(_CHILD.format(file=__file__), kind, folder, number, moment)


def _load(kind: str, folder: Path) -> optuna.Study:
    return optuna.load_study(storage=make_storage(kind, str(folder)), study_name="s", sampler=make_sampler())


def _killed_study(kind: str, folder: Path, number: int, moment: str) -> optuna.Study:
    assert _start(kind, folder, number, moment).wait(timeout=120) == -signal.SIGKILL
    study = _load(kind, folder)
    assert len(study.get_trials(deepcopy=False)) == number + 1
    return study


def _undisturbed(n_trials: int, failing: int | None = None) -> optuna.Study:
    def flaky(trial: Trial) -> float:
        value = objective(trial)
        if trial.number == failing:
            raise OSError
        return value

    study = optuna.create_study(sampler=make_sampler())
    study.optimize(flaky, n_trials=n_trials, catch=(OSError,))
    return study


def _ours(study: optuna.Study) -> CmaSampler:
    assert isinstance(study.sampler, CmaSampler)
    return study.sampler


def _parameters(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def test_a_run_killed_between_trials_goes_on_with_identical_draws(tmp_path: Path) -> None:
    study = _killed_study("sqlite", tmp_path, 13, "after")  # an update is due next
    study.optimize(objective, n_trials=9)
    whole = _undisturbed(23)
    assert _parameters(study) == _parameters(whole)
    assert make_sampler().state(study).to_json() == _ours(whole).state(whole).to_json()


def test_a_run_killed_twice_goes_on_with_identical_draws(tmp_path: Path) -> None:
    _killed_study("journal", tmp_path, 6, "after")
    study = _killed_study("journal", tmp_path, 17, "after")
    study.optimize(objective, n_trials=20)
    assert _parameters(study) == _parameters(_undisturbed(38))


def test_a_run_killed_within_a_trial(tmp_path: Path) -> None:
    study = _killed_study("journal", tmp_path, 7, "within")  # this trial carries an update
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert study.trials[7].state == TrialState.RUNNING
    # Left alone, the trial counts as failed.
    study.optimize(objective, n_trials=25)
    assert _parameters(study) == _parameters(_undisturbed(33, failing=7))
    # Or it can be finished from its stored parameters.
    study = _load("journal", tmp_path / "copy")
    study.tell(7, objective(optuna.trial.FixedTrial(study.trials[7].params)))
    study.optimize(objective, n_trials=25)
    assert _parameters(study) == _parameters(_undisturbed(33))


@pytest.mark.parametrize("kind, each", [("journal", 30), ("sqlite", 8)])
def test_processes_that_share_a_study_use_every_trial_once(kind: str, each: int, tmp_path: Path) -> None:
    optuna.create_study(storage=make_storage(kind, str(tmp_path)), study_name="s")
    children = [_start(kind, tmp_path, each, "never") for _ in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    study = _load(kind, tmp_path)
    assert [trial.state for trial in study.get_trials(deepcopy=False)] == [TrialState.COMPLETE] * (2 * each)
    state = make_sampler().state(study)
    assert 2 * each - state.evaluations < 7 + 1
    assert state.generation >= 2 * each // 9


def test_what_is_stored_fits_every_storage() -> None:
    study = _undisturbed(60)
    texts = [
        text
        for trial in study.get_trials(deepcopy=False)
        for key, text in trial.system_attrs.items()
        if key.startswith("gfb_brevitas")
    ]
    assert texts and all(isinstance(text, str) and len(text) < 300 for text in texts)
