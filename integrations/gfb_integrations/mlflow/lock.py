"""One courier at a time for a spool.

As :mod:`gfb_brevitas.search.run_lock`, which the courier cannot import without PyTorch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO


class Lock:
    """A lock that ends with the process, however it ends.

    Args:
        path: Its file, which stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None

    def acquire(self) -> bool:
        """Take the lock; ``False`` where another process has it."""
        stream = self._path.open("ab")
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.close()
            return False
        self._stream = stream
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
