"""One process at a time in a run folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gfb_brevitas.errors import CheckpointError

_held: set[TextIO] = set()
_TRIES, _PAUSE_S = 5, 0.02  # who only looks whether a run is alive holds its lock for moments


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        process: Number of the process, if it can be read.
    """

    process: int | None


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock file ``path``, or ``None``; without keeping it from anybody."""
    try:
        stream = path.open(encoding="ascii", errors="replace")
    except OSError:
        return None
    with stream:  # which ends the look
        if _lock(stream, shared=True):
            return None
        try:
            text = stream.read().strip()
        except OSError:  # on Windows, where a locked file cannot be read
            text = ""
        return Holder(int(text) if text.isdigit() else None)


class RunLock:
    """The lock of a run folder, held.

    Args:
        path: Its file.
        stream: The same, open.
    """

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path, self._stream = path, stream

    def require_in_place(self) -> None:
        """Check that its file is still the one in the folder.

        Raises:
            CheckpointError: If the folder was removed, moved or replaced: nothing may be written there.
        """
        try:
            there = os.path.samestat(os.fstat(self._stream.fileno()), self._path.stat())
        except OSError:
            there = False
        if not there:
            raise CheckpointError(
                f"The run folder {str(self._path.parent)!r} was removed, moved or replaced while the run "
                "went on. A folder that was moved can be resumed from where it is now."
            )


@contextmanager
def exclusive(path: Path) -> Iterator[RunLock]:
    """Hold the lock file ``path`` inside the block.

    The lock belongs to the process and ends with it, however it ends; the file itself may stay.

    Raises:
        CheckpointError: If another run, in this or another process, holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii", errors="replace") as stream:
        if not _lock_soon(stream):
            stream.seek(0)
            raise _in_use(path, stream.read().strip() or "unknown")
        _held.add(stream)
        try:
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            yield RunLock(path, stream)
        finally:
            _held.discard(stream)


def _leave_to_parent() -> None:
    """Let go of the locks in a forked process, which would hold them on when its parent is killed."""
    for stream in _held:
        with open(os.devnull, "ab") as nothing:
            os.dup2(nothing.fileno(), stream.fileno(), inheritable=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _in_use(path: Path, process: str) -> CheckpointError:
    return CheckpointError(
        f"The run folder {str(path.parent)!r} is in use by another run (process {process}). "
        "Wait for it, stop it, or use another folder."
    )


def _lock_soon(stream: TextIO) -> bool:
    for _ in range(_TRIES - 1):
        if _lock(stream):
            return True
        time.sleep(_PAUSE_S)
    return _lock(stream)


def _lock(stream: TextIO, *, shared: bool = False) -> bool:
    if sys.platform == "win32":
        return _lock_on_windows(stream)
    import fcntl

    try:
        # Not a POSIX record lock (lockf): that ends as soon as anything in the process, such as a backup of
        # the folder, has read the file, and it does not keep threads apart.
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_on_windows(stream: TextIO) -> bool:
    if sys.platform != "win32":
        return False
    import msvcrt

    try:
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
