"""Faults of the place where a run is kept: full, read only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.core.faults.runs import Course, RunProcess, database_in


class NoTmpfs(Exception):  # noqa: N818 - says why
    """There is no file system of a size of its own to be had."""


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A tmpfs of a size at a folder.

    Raises:
        NoTmpfs: If it cannot be mounted.
    """
    if os.geteuid() != 0:
        raise NoTmpfs("only root may mount one")
    _mount(folder, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, str(folder)], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise NoTmpfs(done.stderr.strip())


def disk_full(course: Course) -> None:
    """The disk with the run folder, in every second try with the database too, is full at a random point.

    Then there is room again.
    """
    run_bytes, database_bytes = (
        sum(file.stat().st_size for file in course.expected.folder.glob(files) if file.is_file())
        for files in ("run/**/*", "studies.db*")
    )
    for folder in course.folders():
        beside = f"sqlite:///{folder}.db" if course.done % 2 else database_in(folder)
        needed = run_bytes + (0 if course.done % 2 else database_bytes)
        size_bytes = 4096 * int(course.rng.integers(8, 8 + needed // 3000))
        with small_disk(folder, size_bytes):
            stopped = RunProcess(folder, beside, impatient=True).wait()
            if stopped.allocation is None and not _is_clear(stopped.error):
                course.note([f"with {size_bytes} bytes: {stopped.error or 'it died'}"])
                continue
            course.saw("went on" if stopped.allocation is not None else "stopped")
            _mount(folder, "-o", f"remount,size={100 * needed}")
            course.judge(folder, RunProcess(folder, beside).wait(), beside)


def read_only(course: Course) -> None:
    """The run folder becomes read only at a random moment; then it can be written again."""
    for folder in course.folders():
        process = RunProcess(folder, obedient=True)
        process.wait_for_lines(int(course.rng.integers(1, len(course.expected.history))))
        _set_writable(folder / "run", False)
        stopped = process.wait()
        _set_writable(folder / "run", True)
        if stopped.allocation is None and not _is_clear(stopped.error):
            course.note([stopped.error or "it died"])
            continue
        course.saw("went on" if stopped.allocation is not None else "stopped")
        course.judge(folder, RunProcess(folder, obedient=True).wait())


def _set_writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        mode = 0o755 if path.is_dir() else 0o644
        with suppress(FileNotFoundError):  # it has just taken its place
            path.chmod(mode if writable else mode & 0o555)


def _is_clear(error: str) -> bool:
    beginnings = ("CheckpointError: ", "ConfigurationError: The storage ", "ConfigurationError: The run ")
    return error.startswith(beginnings)
