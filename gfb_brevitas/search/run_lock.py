"""One process at a time in a run folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from gfb_brevitas.errors import CheckpointError

_held_here: set[Path] = set()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` inside the block.

    The lock belongs to the process and ends with it, however it ends; the file itself may stay.

    Raises:
        CheckpointError: If another run, in this or another process, holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    key = path.resolve()
    if key in _held_here:
        raise _in_use(path, str(os.getpid()))
    with path.open("a+", encoding="ascii", errors="replace") as stream:
        if not _lock(stream):
            stream.seek(0)
            raise _in_use(path, stream.read().strip() or "unknown")
        _held_here.add(key)
        try:
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            yield
        finally:
            _held_here.discard(key)


def _in_use(path: Path, process: str) -> CheckpointError:
    return CheckpointError(
        f"The run folder {str(path.parent)!r} is in use by another run (process {process}). "
        "Wait for it, stop it, or use another folder."
    )


def _lock(stream: TextIO) -> bool:
    if sys.platform == "win32":
        return _lock_on_windows(stream)
    import fcntl

    try:
        # A POSIX record lock, not flock: forked DataLoader workers that outlive a killed process
        # would go on holding the latter.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
