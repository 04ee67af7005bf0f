"""Faults of the process: killed, interrupted, started twice."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.core.faults.runs import Course, RunProcess

OFTEN = 12


def kill(course: Course) -> None:
    """SIGKILL at a random moment of the run."""
    for folder in course.folders():
        _end_at_a_moment(course, folder, signal.SIGKILL)
        course.judge(folder, RunProcess(folder).wait())


def kill_again_and_again(course: Course) -> None:
    """SIGKILL after one to five records, of the run and of each of its resumptions, until it gets through."""
    for folder in course.folders():
        for _ in range(OFTEN):
            process = RunProcess(folder)
            process.wait_for_lines(process.lines() + int(course.rng.integers(1, 6)))
            if not process.runs:
                break
            course.saw("kills")
            process.end()
        course.judge(folder, RunProcess(folder).wait())


def interrupt(course: Course) -> None:
    """Ctrl-C at a random moment of the run."""
    for folder in course.folders():
        _end_at_a_moment(course, folder, signal.SIGINT)
        course.judge(folder, RunProcess(folder).wait())


def start_twice(course: Course) -> None:
    """A second process on the folder of one that works: it says so, and the first goes on."""
    for folder in course.folders():
        first = RunProcess(folder)
        first.wait_for_lines(1 + int(course.rng.integers(15)))
        first.send(signal.SIGSTOP)  # it would have ended before the other one has begun
        second = RunProcess(folder).wait()
        first.send(signal.SIGCONT)
        if "is in use by another run" not in second.error:
            course.note([f"the second one: {second}"])
            continue
        course.saw("refused")
        course.judge(folder, first.wait())


def _end_at_a_moment(course: Course, folder: Path, how: signal.Signals) -> None:
    for _ in range(10):
        process = RunProcess(folder)
        course.moment(process)
        if process.runs:
            break
        shutil.rmtree(folder)  # it was faster than the undisturbed one, and was over
        folder.mkdir()
    process.end(how)
    _saw_moment(course, process)


def _saw_moment(course: Course, process: RunProcess) -> None:
    config, history = process.folder / "config.json", process.folder / "history.jsonl"
    if (process.folder / "summary.json").exists():
        course.saw("at the end")
    elif not config.exists():
        course.saw("before its beginning")
    else:
        units = ("epoch", "generation", "step", "round", "calibration")
        text = history.read_text() if history.exists() else ""
        last = text.rsplit("\n", 2)[-2] if text.count("\n") > 1 else ""
        kind = next((unit for unit in units if f'"kind":"{unit}"' in last), "calibration")
        course.saw(f"after a record of kind {kind}" if last else "in its calibration")
