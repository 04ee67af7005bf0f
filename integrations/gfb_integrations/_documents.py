"""JSON documents with their format and a checksum, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.files import sealed, unsealed, write_text_atomically
from gfb_brevitas.search.saving import saving

_VERSION = 1


def write_document(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write a document.

    Args:
        path: The file.
        kind: What it holds, e.g. ``"finn_estimate"``; part of its format.
        content: Plain data for JSON.

    Raises:
        CheckpointError: If it cannot be written.
    """
    document = {"format": f"gfb_brevitas.{kind}", "version": _VERSION, **content}
    with saving(path):
        write_text_atomically(path, json.dumps(sealed(document), indent=1) + "\n")


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Read what :func:`write_document` wrote.

    Raises:
        CheckpointError: Naming the file, if it cannot be read, is damaged or holds something else.
    """
    try:
        document = unsealed(json.loads(path.read_text(encoding="utf-8")))
        if (document["format"], document["version"]) != (f"gfb_brevitas.{kind}", _VERSION):
            raise ValueError(f"it is not of format 'gfb_brevitas.{kind}', version {_VERSION}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise CheckpointError(f"{str(path)!r} is damaged: {reason}.") from error
    return {key: value for key, value in document.items() if key not in ("format", "version")}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, by which it is known whether a document speaks of it.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
