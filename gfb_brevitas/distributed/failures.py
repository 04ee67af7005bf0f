"""Errors that end a run in all of its processes, as text that one process tells the others."""

from __future__ import annotations

import json

from gfb_brevitas import errors
from gfb_brevitas.errors import DistributedError, GfbError


def told(error: BaseException, rank: int, size: int, limit: int) -> bytes:
    """What the other processes are told about an error.

    Args:
        error: Why this process stops.
        rank: This process.
        size: Number of processes.
        limit: Most bytes.
    """
    text = str(error)
    while True:
        document = {"type": type(error).__name__, "text": text, "rank": rank, "size": size}
        message = json.dumps(document).encode()
        if len(message) <= limit:
            return message
        text = text[: max(0, min(len(text) - 1, len(text) - (len(message) - limit) // 6 - 1))]


def heard(message: bytes) -> GfbError:
    """The error to raise for what another process told.

    An error of this package keeps its class and message, so that all processes end in the same way.
    """
    document = json.loads(message)
    name, text = str(document["type"]), str(document["text"])
    where = f"process {document['rank']} of {document['size']}"
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, GfbError):
        return known(f"{text} (In {where}.)")
    if name in ("KeyboardInterrupt", "SystemExit"):
        return DistributedError(f"The run was interrupted in {where}.")
    return DistributedError(f"The run failed in {where} with {name}: {text}")
