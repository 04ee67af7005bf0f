"""Trials in the user's storage: what is written, when, and what happens if the storage fails."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.extras import install_command
from gfb_brevitas.search import bulk_insert
from gfb_brevitas.search.storages import RUN_ATTRIBUTE, opened_storage
from gfb_brevitas.search.trial_writer import TrialWriter
from tests.core.search.databases import NoPostgresql, make_storage, postgresql
from tests.core.search.small_problem import run
from tests.forked_python import ForkedPython

DISTRIBUTIONS: dict[str, optuna.distributions.BaseDistribution] = {
    "conv.weight": optuna.distributions.FloatDistribution(0.0, 3.0),
    "conv.act": optuna.distributions.FloatDistribution(0.5, 3.5),
    "fc": optuna.distributions.IntDistribution(1, 8),
    "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
}


def finished(count: int, seed: int = 0) -> list[FrozenTrial]:
    """Trials as a search tells them, with all that such a trial can have."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    told = []
    for i in range(count):
        trial = study.ask(dict(DISTRIBUTIONS))
        trial.set_constraint("memory", float(rng.normal()))
        trial.set_user_attr("bits", json.dumps({"conv": i, "ü": 'a "quoted" text'}))
        trial.set_user_attr("loss", "nan" if i == 1 else float(rng.normal()))
        told.append(study.tell(trial, np.inf if i == 1 else float(rng.normal())))
    return told


def content(trial: FrozenTrial) -> dict[str, Any]:
    """All of a trial but its id in the database."""
    fields = {key: value for key, value in vars(trial).items() if key != "_trial_id"}
    return {**fields, "order": [*trial.params, *trial.user_attrs, *trial.system_attrs]}


def stored(place: str, name: str = "step") -> list[FrozenTrial]:
    """What a storage object of its own reads."""
    return optuna.load_study(study_name=name, storage=make_storage(place)).trials


@pytest.fixture(params=["sqlite", "journal"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a storage is that outlives its object."""
    return f"{request.param}:///{tmp_path}/studies"


def check_that_the_writer_s_trials_are_optuna_s(place: str) -> None:
    trials = finished(6)
    writer = TrialWriter(make_storage(place), "id")
    writer.begin("step")
    with writer.flushed():
        writer.add("step", trials[:4])
        writer.add("step", trials[4:])
    usual = optuna.create_study(study_name="usual", storage=make_storage(place))
    usual.add_trials(trials)
    assert [content(t) for t in stored(place)] == [content(t) for t in stored(place, "usual")]
    study = optuna.load_study(study_name="step", storage=make_storage(place))
    assert study.user_attrs == {RUN_ATTRIBUTE: "id"}
    assert study.best_trial.number == min(range(6), key=lambda i: trials[i].value or 0.0)
    assert [t.constraints for t in study.trials] == [t.constraints for t in trials]
    assert writer.missing == {}


def test_what_is_stored_is_what_optuna_would_store(place: str) -> None:
    check_that_the_writer_s_trials_are_optuna_s(place)


def test_postgresql() -> None:
    try:
        with postgresql() as url:
            check_that_the_writer_s_trials_are_optuna_s(url)
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


def test_a_missing_driver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=re.escape(install_command("postgresql"))) as caught:
        opened_storage("postgresql+psycopg://me:secret@nowhere/none")
    assert "secret" not in str(caught.value)


def test_other_releases_of_optuna_are_written_to_through_its_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bulk_insert, "_KNOWN_MAJOR_VERSIONS", (99,))
    bulk_insert._log_once.cache_clear()
    for name in ("a", "b"):
        check_that_the_writer_s_trials_are_optuna_s(f"sqlite:///{tmp_path}/{name}.db")
    assert caplog.text.count("written one by one") == 1


def test_in_memory_databases_are_written_to_by_the_thread_that_sees_them() -> None:
    storage = optuna.storages.get_storage("sqlite:///:memory:")
    writer = TrialWriter(storage)
    writer.begin("step")
    writer.add("step", finished(3))
    assert len(optuna.load_study(study_name="step", storage=storage).trials) == 3


def test_ctrl_c_in_the_middle_of_writing_into_memory() -> None:
    class Interrupted(optuna.storages.InMemoryStorage):
        calls = 0

        def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().create_new_trial(study_id, template_trial)

    storage, trials = Interrupted(), finished(5)
    writer = TrialWriter(storage)
    writer.begin("step")
    with pytest.raises(KeyboardInterrupt), writer.flushed():
        writer.add("step", trials)
    study = optuna.load_study(study_name="step", storage=storage)
    assert [t.params for t in study.trials] == [t.params for t in trials]


WRITE = """
import sys
from tests.core.search.test_trial_writer import written_in_turn
print("ready", flush=True)
sys.stdin.readline()
written_in_turn(sys.argv[1], 1)
"""


def written_in_turn(place: str, seed: int) -> None:
    """Many small transactions in a study that exists."""
    writer = TrialWriter(make_storage(place))
    for i in range(10):
        with writer.flushed():
            writer.add("step", finished(3, seed=10 * seed + i))
    assert writer.missing == {}


def test_numbers_are_contiguous_with_two_processes_in_one_study(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(study_name="step", storage=make_storage(place))
    with ForkedPython(WRITE, place, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        written_in_turn(place, 2)
        process.communicate()
    assert process.returncode == 0
    trials = stored(place)
    assert [trial.number for trial in trials] == list(range(60))
    assert len({json.dumps(trial.params) for trial in trials}) == 60


class Fragile(optuna.storages.InMemoryStorage):
    """A storage that fails while it is told to, after having stored the trial or before."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.late = False

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if self.failures and not self.late:
            self._fail()
        number = super().create_new_trial(study_id, template_trial)
        if self.failures:
            self._fail()
        return number

    def _fail(self) -> None:
        self.failures -= 1
        raise OSError("the connection was dropped\nwith details")


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Fragile:
    """In the background, as a database is."""
    monkeypatch.setattr("gfb_brevitas.search.trial_writer.is_in_memory", lambda storage: False)
    return Fragile()


@pytest.mark.parametrize("late", [False, True])
def test_a_storage_that_fails_for_a_moment(
    fragile: Fragile, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writer, trials = TrialWriter(fragile), finished(4)
    writer.begin("step")
    fragile.failures, fragile.late = 2, late
    with writer.flushed():
        writer.add("step", trials)
    study = optuna.load_study(study_name="step", storage=fragile)
    assert [t.params for t in study.trials] == [t.params for t in trials]
    assert "storage" not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("gfb"))


def test_equal_trials_of_different_generations_are_all_kept(fragile: Fragile) -> None:
    writer, trials = TrialWriter(fragile), finished(3)
    writer.begin("step")
    for _ in range(2):
        with writer.flushed():
            fragile.failures, fragile.late = 1, True
            writer.add("step", trials)
    study = optuna.load_study(study_name="step", storage=fragile)
    assert [t.params for t in study.trials] == 2 * [t.params for t in trials]


def test_a_storage_that_goes_on_failing_stops_nobody_and_gets_everything_in_the_end(
    fragile: Fragile, caplog: pytest.LogCaptureFixture
) -> None:
    writer, trials = TrialWriter(fragile, patience=0.0), finished(9)
    writer.begin("step")
    fragile.failures = 10**6
    for i in range(0, 9, 3):
        with writer.flushed():
            writer.add("step", trials[i : i + 3])
    assert writer.missing == {"step": 9}
    assert caplog.text.count("The storage fails (the connection was dropped)") == 1
    fragile.failures = 0
    writer.begin("next")  # while it is thought to fail; created with its first trials
    writer.add("next", trials[:2])
    writer.close()
    for name, expected in (("step", trials), ("next", trials[:2])):
        study = optuna.load_study(study_name=name, storage=fragile)
        assert [t.params for t in study.trials] == [t.params for t in expected]
    assert writer.missing == {} and "not in the storage" not in caplog.text


def test_what_is_missing_at_the_end_is_said(fragile: Fragile, caplog: pytest.LogCaptureFixture) -> None:
    writer = TrialWriter(fragile, patience=0.0)
    writer.begin("step")
    fragile.failures = 10**6
    writer.add("step", finished(3))
    writer.close("They are elsewhere.")
    assert "3 trials are not in the storage" in caplog.text
    assert "3 of 'step'. They are elsewhere." in caplog.text


def test_a_study_that_is_deleted_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = f"sqlite:///{tmp_path}/studies.db"
    writer = TrialWriter(make_storage(place))
    for name in ("step", "next"):
        writer.begin(name)
    optuna.delete_study(study_name="step", storage=make_storage(place))
    with writer.flushed():
        writer.add("step", finished(2))
        writer.add("next", finished(2))
    assert len(stored(place, "next")) == 2
    assert writer.missing == {"step": 2}
    assert "'step' was deleted" in caplog.text


def test_trials_of_a_deleted_study_do_not_come_into_the_one_that_has_its_number(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/studies.db"
    writer = TrialWriter(make_storage(place))
    writer.begin("step")
    optuna.delete_study(study_name="step", storage=make_storage(place))
    writer.begin("next")
    with writer.flushed():
        writer.add("step", finished(2))
        writer.add("next", finished(3))
    assert len(stored(place, "next")) == 3
    assert writer.missing == {"step": 2}


def test_what_a_deletion_left_behind_does_not_come_into_a_new_study(tmp_path: Path) -> None:
    """Optuna reads which trials a study has before it deletes it; SQLite gives the study's number again."""
    import sqlite3

    place = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(storage=make_storage(place), study_name="deleted").add_trials(finished(3))
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database, database:
        database.execute("DELETE FROM study_directions")
        database.execute("DELETE FROM studies")
    writer = TrialWriter(make_storage(place))
    writer.begin("step")
    with writer.flushed():
        writer.add("step", finished(2, seed=1))
    assert [trial.number for trial in stored(place)] == [0, 1]


class Silent(optuna.storages.InMemoryStorage):
    """A storage that does not answer until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()

    def create_new_study(self, *arguments: Any, **more: Any) -> int:
        self.answers.wait()
        return super().create_new_study(*arguments, **more)

    def create_new_trial(self, *arguments: Any, **more: Any) -> int:
        self.answers.wait()
        return super().create_new_trial(*arguments, **more)


def test_a_storage_that_does_not_answer_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gfb_brevitas.search.trial_writer.is_in_memory", lambda storage: False)
    storage, trials = Silent(), finished(9)
    writer = TrialWriter(storage, patience=0.1, longest_write=0.3)
    writer.begin("step")
    storage.answers.clear()
    for i in range(0, 6, 3):
        with writer.flushed():
            writer.add("step", trials[i : i + 3])
    writer.begin("next")
    writer.add("next", trials[6:])
    writer.close("They are elsewhere.")
    assert caplog.text.count("The storage does not answer for 0.3 s") == 1
    assert "9 trials are not in the storage" in caplog.text
    storage.answers.set()
    deadline = time.monotonic() + 10
    while writer.missing and time.monotonic() < deadline:
        writer.flush()
        time.sleep(0.01)
    for name, expected in (("step", trials[:6]), ("next", trials[6:])):
        study = optuna.load_study(study_name=name, storage=storage)
        assert [t.params for t in study.trials] == [t.params for t in expected]


def test_a_study_whose_creation_hangs_is_created_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gfb_brevitas.search.trial_writer.is_in_memory", lambda storage: False)
    storage, trials = Silent(), finished(3)
    writer = TrialWriter(storage, "id", patience=0.1, longest_write=0.2)
    storage.answers.clear()
    writer.begin("step")
    writer.add("step", trials)
    storage.answers.set()
    deadline = time.monotonic() + 10
    while writer.missing and time.monotonic() < deadline:
        writer.flush()
        time.sleep(0.01)
    study = optuna.load_study(study_name="step", storage=storage)
    assert [t.params for t in study.trials] == [t.params for t in trials]


def test_a_locked_database_is_waited_for_in_the_background(tmp_path: Path) -> None:
    import sqlite3

    place = f"sqlite:///{tmp_path}/studies.db"
    writer = TrialWriter(make_storage(place))
    writer.begin("step")
    other = sqlite3.connect(tmp_path / "studies.db")
    other.execute("BEGIN IMMEDIATE")
    writer.add("step", finished(3))
    assert writer.missing == {"step": 3}  # and the caller goes on
    other.rollback()
    other.close()
    writer.flush()
    assert len(stored(place)) == 3


def test_no_thread_is_left(place: str) -> None:
    writer = TrialWriter(make_storage(place))
    writer.begin("step")
    with writer.flushed():
        writer.add("step", finished(3))
    for thread in threading.enumerate():
        if thread.name == "gfb-trial-writer":
            thread.join(5)
            assert not thread.is_alive()


def test_a_run_whose_storage_fails_ends_as_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run(name="run")
    fragile = Fragile()
    monkeypatch.setattr(
        "gfb_brevitas.search.run_studies.TrialWriter", lambda *args: TrialWriter(*args, patience=0.0)
    )
    fragile.failures = 10**6
    with caplog.at_level(logging.WARNING):
        result = run(name="run", storage=fragile, run_folder=tmp_path / "run")
    assert dict(result.allocation) == dict(expected.allocation)
    assert caplog.text.count("The storage fails") == 1
    trials = sum(step.evaluations for step in result.history.steps) + 3  # pretraining and two rounds
    assert f"{trials} trials are not in the storage" in caplog.text
    assert "3 of 'run', 12 of 'run/round-01/step-01'" in caplog.text
    assert "unwritten.journal" in caplog.text
