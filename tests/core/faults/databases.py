"""Faults of the user's storage: locked, killed, not answering, studies deleted."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import optuna

from tests.core.faults.runs import Course, RunProcess, database_in, differences
from tests.core.search.databases import PostgresqlServer, everything_but_times, make_storage

HALF = 9
"""Records after which a run is about half done."""


def locked_for_a_while(course: Course) -> None:
    """Another program locks the SQLite file for two seconds."""
    for folder in course.folders():
        process = RunProcess(folder)
        process.wait_for_lines(int(course.rng.integers(1, HALF)))
        other = _locked(folder)
        time.sleep(2.0)
        _release(other)
        course.judge(folder, process.wait())


def locked_to_the_end(course: Course) -> None:
    """Another program locks the SQLite file until the run has ended; resuming it writes what is missing."""
    for folder in course.folders():
        process = RunProcess(folder, impatient=True)
        process.wait_for_lines(int(course.rng.integers(1, HALF)))
        other = _locked(folder)
        _saw_end(course, process)
        _release(other)
        course.judge(folder, RunProcess(folder).wait())


def server_killed(course: Course, server: PostgresqlServer) -> None:
    """PostgreSQL is killed at a random moment and started again a second later."""
    for folder in course.folders():
        _forget_studies(server.url)
        process = RunProcess(folder, server.url)
        process.wait_for_lines(int(course.rng.integers(1, HALF)))
        server.kill()
        time.sleep(1.0)
        server.start()
        course.judge(folder, process.wait(), server.url)


def server_gone(course: Course, server: PostgresqlServer) -> None:
    """PostgreSQL is killed and comes back after the run; resuming it writes what is missing."""
    for folder in course.folders():
        _forget_studies(server.url)
        process = RunProcess(folder, server.url, impatient=True)
        process.wait_for_lines(int(course.rng.integers(1, HALF)))
        server.kill()
        _saw_end(course, process)
        server.start()
        course.judge(folder, RunProcess(folder, server.url).wait(), server.url)


def server_hangs(course: Course, server: PostgresqlServer) -> None:
    """PostgreSQL stops to answer until the run has ended; resuming it writes what is missing."""
    for folder in course.folders():
        _forget_studies(server.url)
        process = RunProcess(folder, server.url, impatient=True)
        process.wait_for_lines(int(course.rng.integers(1, HALF)))
        server.freeze()
        _saw_end(course, process)
        server.thaw()
        course.judge(folder, RunProcess(folder, server.url).wait(), server.url)


def study_deleted(course: Course) -> None:
    """Someone deletes a study that the run writes to: the run and its other studies are as ever."""
    deleted = "run/round-01/step-01"
    for folder in course.folders():
        process = RunProcess(folder)
        process.wait_for_lines(3)
        storage = make_storage(database_in(folder))
        optuna.delete_study(study_name=deleted, storage=storage)
        outcome = process.wait()
        found, expected = everything_but_times(database_in(folder)), dict(course.expected.studies)
        for studies in (found, expected):
            studies.pop(deleted, None)
        problems = list(differences(found, expected))
        if outcome.digest != course.expected.outcome.digest:
            problems.append(outcome.error or "the result is another one")
        course.note(problems, differs=outcome.allocation != course.expected.outcome.allocation)


def _saw_end(course: Course, process: RunProcess) -> None:
    outcome = process.wait()
    course.saw("ended without it" if outcome.allocation else outcome.error or "died")


def _locked(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "studies.db", timeout=30.0, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def _release(connection: sqlite3.Connection) -> None:
    connection.execute("ROLLBACK")
    connection.close()


def _forget_studies(place: str) -> None:
    storage = make_storage(place)
    for name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
