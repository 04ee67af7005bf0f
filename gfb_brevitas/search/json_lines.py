"""Append-only files of one JSON object per line that survive a killed writer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.files import make_folder, sealed, sync_folder, unsealed
from gfb_brevitas.search.saving import saving


class JsonLinesFile:
    """A file of JSON objects, one per line, each with a checksum.

    Each append reaches the disk before it returns. A line that a killed run left unfinished is not
    seen by :meth:`read` and is cut off before the next append.

    Args:
        path: The file; made on the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends_well = False  # whether its last line is known to be whole

    def append(self, document: dict[str, Any]) -> None:
        """Write one object at the end of the file.

        Raises:
            CheckpointError: If it cannot be written.
        """
        text = json.dumps(sealed(document), allow_nan=False, separators=(",", ":"))
        with saving(self.path):
            if not self._ends_well:
                lines = self._lines()
                self._cut(sum(map(len, lines[: len(_whole(lines))])))
            self._ends_well = False
            self._write(text.encode() + b"\n")
            self._ends_well = True

    def _write(self, line: bytes) -> None:
        make_folder(self.path.parent)
        is_new = not self.path.exists()
        with self.path.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            sync_folder(self.path.parent)

    def read(self) -> list[dict[str, Any]]:
        """All objects up to the first line that is damaged or unfinished."""
        return _whole(self._lines())

    def read_whole(self, *, ended: bool) -> list[dict[str, Any]]:
        """All objects.

        Args:
            ended: Whether nobody writes to the file any more; else its last line may be unfinished.

        Raises:
            CheckpointError: Naming the line that is damaged.
        """
        lines = self._lines()
        documents = _whole(lines)
        unfinished = len(lines) == len(documents) + 1 and not lines[-1].endswith(b"\n")
        if len(documents) < len(lines) and (ended or not unfinished):
            raise CheckpointError(
                f"{str(self.path)!r} is damaged: line {len(documents) + 1} is not readable."
            )
        return documents

    def keep(self, count: int) -> None:
        """Cut the file after its first ``count`` objects.

        Raises:
            CheckpointError: If it cannot be written.
        """
        with saving(self.path):
            self._cut(sum(map(len, self._lines()[:count])))

    def _cut(self, size: int) -> None:
        if self.path.exists() and self.path.stat().st_size != size:
            with self.path.open("rb+") as stream:
                stream.truncate(size)
                os.fsync(stream.fileno())

    def _lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        return self.path.read_bytes().splitlines(keepends=True)


def _whole(lines: list[bytes]) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = []
    for line in lines:
        document = _object(line)
        if document is None:
            break
        documents.append(document)
    return documents


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
        whole = line.endswith(b"\n") and isinstance(document, dict)
        return unsealed(document) if whole else None
    except (ValueError, RecursionError):
        return None
