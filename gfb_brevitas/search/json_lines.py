"""Append-only files of one JSON object per line that survive a killed writer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gfb_brevitas.search.saving import saving


class JsonLinesFile:
    """A file of JSON objects, one per line.

    Each append reaches the disk before it returns. A line that a killed run left unfinished is not
    seen by :meth:`read` and is cut off before the next append.

    Args:
        path: The file; made on the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size: int | None = None

    def append(self, document: dict[str, Any]) -> None:
        """Write one object at the end of the file.

        Raises:
            CheckpointError: If it cannot be written.
        """
        if self._size is None:
            self._cut(len(b"".join(self._complete_lines())))
        line = json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with saving(self.path):
            self._write(line)

    def _write(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All objects up to the first line that is not a whole one."""
        return [json.loads(line) for line in self._complete_lines()]

    def keep(self, count: int) -> None:
        """Cut the file after its first ``count`` objects."""
        self._cut(len(b"".join(self._complete_lines()[:count])))

    def _cut(self, size: int) -> None:
        self._size = size
        if self.path.exists() and self.path.stat().st_size != size:
            with self.path.open("rb+") as stream:
                stream.truncate(size)
                os.fsync(stream.fileno())

    def _complete_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        lines: list[bytes] = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or not _is_object(line):
                break
            lines.append(line)
        return lines


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
