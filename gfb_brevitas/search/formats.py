"""Which document a file holds, and of which version: checked alike wherever one is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gfb_brevitas.errors import CheckpointError

FORMAT = "gfb_brevitas.run"
"""Format of the documents of a run's folder."""
VERSION = 1


class OtherVersionError(ValueError):
    """A document that is whole, and of another version than this release reads."""


def require_format(document: Any, name: str, version: int) -> None:
    """Check the head of a document.

    Raises:
        KeyError, TypeError, ValueError: If it is something else.
        OtherVersionError: If another release wrote it.
    """
    if document["format"] != name:
        raise ValueError(f"it is not of format {name!r}")
    if document["version"] != version:
        raise OtherVersionError(
            f"is of version {document['version']!r} of its format, and this release reads version {version}"
        )


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """What to raise for a file whose reading ended with an error."""
    if isinstance(error, OtherVersionError):
        return CheckpointError(f"{str(path)!r} {error}. Use the release of gfb_brevitas that wrote it.")
    reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
    return CheckpointError(f"{str(path)!r} is damaged: {reason}.")
