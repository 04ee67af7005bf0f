"""Runs that run, failed, were interrupted, were killed, and ended, told apart by their folders."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.report import run_rows
from gfb_brevitas.search import Callback, EpochRecord, RecordedRun, RunStatus, StartRecord
from gfb_brevitas.search.run_lock import exclusive, holder_of
from tests.core.search.small_problem import run, searchable
from tests.forked_python import ForkedPython

WAITING = """
import sys
from tests.core.search.small_problem import run, searchable

class Waiting:
    def on_epoch(self, record):
        print("epoch", flush=True)
        sys.stdin.read()

run(searchable(), run_folder=sys.argv[1], callbacks=[Waiting()])
"""


class Raising(Callback):
    """Raises something at the end of the first epoch, or at the start."""

    def __init__(self, error: BaseException, at: str = "epoch") -> None:
        self.error, self.at = error, at

    def on_start(self, record: StartRecord) -> None:
        if self.at == "start":
            raise self.error

    def on_epoch(self, record: EpochRecord) -> None:
        if self.at == "epoch":
            raise self.error


def stopped_by(error: BaseException, folder: Path, at: str = "epoch") -> RunStatus:
    with pytest.raises(type(error)):
        run(searchable(), run_folder=folder, callbacks=[Raising(error, at)])
    return RecordedRun.load(folder).status


@pytest.mark.parametrize("at", ["start", "epoch"])
def test_a_run_that_failed_says_when_and_of_what(tmp_path: Path, at: str) -> None:
    status = stopped_by(RuntimeError("the disk of the camera is gone"), tmp_path / "run", at)
    assert (status.state, status.error) == ("failed", "RuntimeError: the disk of the camera is gone")
    assert timedelta(0) <= datetime.now(UTC) - status.since < timedelta(minutes=2)
    (row,) = run_rows([RecordedRun.load(tmp_path / "run")])
    assert row["state"] == "failed" and row["status"]["error"] == status.error


def test_a_run_that_was_interrupted(tmp_path: Path) -> None:
    status = stopped_by(KeyboardInterrupt(), tmp_path / "run")
    assert (status.state, status.error) == ("interrupted", "")


def test_a_run_that_goes_on_and_ends_has_not_failed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_by(RuntimeError("once"), folder)
    seen: list[str] = []

    class Looking(Callback):
        def on_epoch(self, record: EpochRecord) -> None:
            status = RecordedRun.load(folder).status
            seen.append(f"{status.state} {status.process}")

    run(searchable(), run_folder=folder, resume=True, callbacks=[Looking()])
    assert seen and set(seen) == {f"running {os.getpid()}"}
    assert RecordedRun.load(folder).status.state == "ended"
    assert not (folder / "status.json").exists()


def test_who_is_refused_says_nothing_of_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    before = stopped_by(KeyboardInterrupt(), folder)
    with pytest.raises(ConfigurationError, match="holds a run already"):
        run(searchable(), run_folder=folder)
    with pytest.raises(CheckpointError, match="is another one"):
        run(searchable(), run_folder=folder, resume=True, calibrate=False)
    assert RecordedRun.load(folder).status == before


def test_a_run_of_another_process_runs_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with ForkedPython(WAITING, folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "epoch\n"
            status = RecordedRun.load(folder).status
            assert (status.state, status.process) == ("running", process.pid)
            assert f"is running (process {process.pid}, last record " in status.in_words()
        finally:
            process.kill()
        process.wait()
    status = RecordedRun.load(folder).status
    assert status.state == "stopped"
    assert "was stopped from outside" in status.in_words()


def test_a_failure_that_is_damaged_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    stopped_by(RuntimeError("once"), tmp_path / "run")
    path = tmp_path / "run" / "status.json"
    path.write_text(path.read_text().replace("once", "never"))
    with pytest.raises(CheckpointError, match=r"status\.json' is damaged"):
        RecordedRun.load(tmp_path / "run")


def test_a_removed_folder_is_not_made_again(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"

    class Removing(Callback):
        def on_epoch(self, record: EpochRecord) -> None:
            shutil.rmtree(folder)
            raise RuntimeError("and gone")

    with pytest.raises(RuntimeError, match="and gone"):
        run(searchable(), run_folder=folder, callbacks=[Removing()])
    assert not folder.exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s ago"), (600, "10 min ago"), (10_000, "2.8 h ago"), (-3, "0 s ago")]
)
def test_how_long_ago_the_last_record_is(seconds: float, text: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    status = RunStatus(state="running", since=now - timedelta(seconds=seconds), process=7)
    assert status.in_words(now) == f"is running (process 7, last record {text})"


def test_looking_at_the_lock_takes_it_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert holder_of(path) is None
    with exclusive(path):
        for _ in range(3):
            holder = holder_of(path)
            assert holder is not None and holder.process == os.getpid()
    assert holder_of(path) is None
    with exclusive(path):
        pass


def test_status_is_plain_data(tmp_path: Path) -> None:
    document: dict[str, Any] = stopped_by(ValueError("no"), tmp_path / "run").to_dict()
    assert json.loads(json.dumps(document))["state"] == "failed"


def test_a_run_that_is_in_the_way_and_holds_nothing_may_be_removed(tmp_path: Path) -> None:
    empty, begun = tmp_path / "empty", tmp_path / "begun"
    stopped_by(RuntimeError("once"), empty, at="start")
    stopped_by(RuntimeError("once"), begun)
    with pytest.raises(CheckpointError, match="is another one.* remove the folder"):
        run(searchable(), run_folder=empty, resume=True, calibrate=False)
    with pytest.raises(CheckpointError, match="is another one") as refused:
        run(searchable(), run_folder=begun, resume=True, calibrate=False)
    assert "remove" not in str(refused.value)
