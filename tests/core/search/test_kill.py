"""Runs that are ended from outside, with a database: they lose and repeat nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.core.search.databases import Studies, everything_but_times, make_storage
from tests.core.search.small_problem import comparable, run
from tests.forked_python import ForkedPython

MOMENTS = [
    "search study created, not marked",
    "step study created, not marked",
    "inside a transaction",
    "inside a transaction of a round",
    "generation told, not handed over",
    "round told, not handed over",
    "in a generation",
]

# One process for each moment, forked before any computation to import everything once only. It says that
# it is there, and waits to be killed.
SCRIPT = """
import os, signal, sys
import optuna
from gfb_brevitas.search import bulk_insert, trial_writer
from tests.core.search.databases import make_storage
from tests.core.search.small_problem import run


def halt():
    print(os.getpid(), flush=True)
    signal.pause()


def halt_at(owner, name, number, after):
    original, calls = getattr(owner, name), []

    def replacement(*arguments, **keywords):
        calls.append(name)
        if len(calls) == number and not after:
            halt()
        result = original(*arguments, **keywords)
        if len(calls) == number and after:
            halt()
        return result

    setattr(owner, name, replacement)


class AtGeneration:
    def on_generation(self, record):
        if (record.step, record.generation) == (2, 2):
            halt()


def run_until(moment, place, folder):
    callbacks = []
    if moment == "search study created, not marked":
        halt_at(optuna.Study, "set_user_attr", 2, after=False)
    elif moment == "step study created, not marked":
        halt_at(optuna.Study, "set_user_attr", 9, after=False)
    elif moment == "inside a transaction":
        halt_at(bulk_insert, "_trial_row", 6, after=True)
    elif moment == "inside a transaction of a round":
        halt_at(bulk_insert, "_delete_rows", 2, after=True)
    elif moment == "generation told, not handed over":
        halt_at(trial_writer.TrialWriter, "add", 9, after=False)
    elif moment == "round told, not handed over":
        halt_at(trial_writer.TrialWriter, "add", 14, after=False)
    else:
        callbacks.append(AtGeneration())
    run(run_folder=folder, storage=make_storage(place), name="run", callbacks=callbacks)


for moment, place, folder in zip(*[iter(sys.argv[1:])] * 3):
    child = os.fork()
    if not child:
        run_until(moment, place, folder)
        os._exit(1)  # it ended before it could be killed
    _, status = os.waitpid(child, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise SystemExit(f"{moment}: status {status}")
"""


def place_of(folder: Path) -> str:
    """URL of the database in a folder."""
    return f"sqlite:///{folder}/studies.db"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each moment, with the run folder and the database of a run that was killed then."""
    folders = {moment: tmp_path_factory.mktemp("killed") for moment in MOMENTS}
    arguments = [x for m, folder in folders.items() for x in (m, place_of(folder), str(folder / "run"))]
    with ForkedPython(SCRIPT, *arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            os.kill(int(line), signal.SIGKILL)
    assert process.returncode == 0
    return folders


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Any, ...], Studies]:
    place = place_of(tmp_path_factory.mktemp("whole"))
    return comparable(run(name="run", storage=make_storage(place))), everything_but_times(place)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    moment: str, killed: dict[str, Path], undisturbed: tuple[tuple[Any, ...], Studies]
) -> None:
    folder, place = killed[moment] / "run", place_of(killed[moment])
    for name, trials in everything_but_times(place).items():
        ended = [trial for trial in trials if trial[1].is_finished()]
        assert len(trials) - len(ended) <= (name == "run") and ended == undisturbed[1][name][: len(ended)]
    result = run(run_folder=folder, resume=True, storage=make_storage(place), name="run")
    assert comparable(result) == undisturbed[0]
    assert everything_but_times(place) == undisturbed[1]
    numbers = {name: [trial[0] for trial in trials] for name, trials in everything_but_times(place).items()}
    evaluations = {step.study: list(range(step.evaluations)) for step in result.history.steps}
    assert numbers == {"run": [0, 1, 2], **evaluations}


def test_ctrl_c_leaves_all_told_trials_in_the_storage(
    tmp_path: Path, undisturbed: tuple[tuple[Any, ...], Studies]
) -> None:
    told = []

    class CtrlC:
        def on_generation(self, record: Any) -> None:
            told.append(record.evaluations)
            if record.generation == 2:
                signal.raise_signal(signal.SIGINT)

    place = place_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(name="run", storage=make_storage(place), callbacks=[CtrlC()])
    search, left = everything_but_times(place).values()
    assert search[-1][-2]["status"] == "stopped: KeyboardInterrupt"
    assert left == undisturbed[1]["run/round-01/step-01"][: told[-1]]
    assert len(left) == told[-1] > 4


def test_a_finished_run_that_is_repeated_writes_nothing(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    arguments: dict[str, Any] = {"run_folder": tmp_path / "run", "resume": True}
    run(storage=make_storage(place), **arguments)
    before = (tmp_path / "studies.db").read_bytes()
    run(storage=make_storage(place), **arguments)
    assert (tmp_path / "studies.db").read_bytes() == before
