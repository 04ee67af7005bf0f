"""Writing the files of a run: what to do when the disk is full or the folder is not writable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gfb_brevitas.errors import CheckpointError


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a write that fails inside the block into an error of the run.

    Args:
        path: The file that is written, for the message.

    Raises:
        CheckpointError: If writing fails; what was written before is kept.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save raises the latter
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{str(path)!r} cannot be written: {reason}. Everything saved before is kept: make room or "
            "repair the folder, then resume the run."
        ) from error
