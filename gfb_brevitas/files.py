"""Writing files whole or not at all, and reading JSON strictly."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP)  # of file systems that sync files only


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well.

    The data reaches the disk before the name does, so a reader (or a run that is killed) sees the
    old file or the new one, never a part; when the block has ended, a power failure leaves the new one.
    """
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a file or folder inside its folder, so that it has its name even after a power failure."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those that it is in, where they are missing; they outlast a power failure."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk: those of new files, and the last renaming."""
    if os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed inside of :func:`replacing` left in a folder.

    Only for a folder that nobody else writes to.
    """
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` for :func:`json.loads` that raises ValueError where a key is repeated."""
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"repeated key {key!r}")
        document[key] = value
    return document


CHECKSUM = "checksum"
"""The last key of a sealed document."""


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with the checksum of its content, by which a damaged file is told from a good one.

    Example:
        >>> unsealed(sealed({"bits": {"conv": 3}}))
        {'bits': {'conv': 3}}
    """
    content = {key: value for key, value in document.items() if key != CHECKSUM}
    return {**content, CHECKSUM: _checksum(content)}


def unsealed(document: Any) -> dict[str, Any]:
    """The content of a document that was sealed.

    Raises:
        ValueError: If it is not what was sealed.
    """
    if not isinstance(document, dict) or CHECKSUM not in document:
        raise ValueError(f'it has no "{CHECKSUM}"')
    content = {key: value for key, value in document.items() if key != CHECKSUM}
    if document[CHECKSUM] != _checksum(content):
        raise ValueError("its content is not what was written: the checksum differs")
    return content


def unsealed_if_sealed(document: dict[str, Any]) -> dict[str, Any]:
    """The content of a document that may have been written by hand, and has no checksum then.

    Raises:
        ValueError: If it has a checksum and is not what was sealed.
    """
    if CHECKSUM not in document:
        return document
    try:
        return unsealed(document)
    except ValueError as error:
        raise ValueError(f'{error}. If it was changed on purpose, remove the entry "{CHECKSUM}"') from error


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(content))  # as a reader sees it: keys are strings
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
