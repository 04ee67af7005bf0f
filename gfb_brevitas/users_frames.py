"""Which part of a traceback is the user's own."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Collection
from pathlib import Path

import gfb_brevitas

_PACKAGE = Path(gfb_brevitas.__file__).resolve().parent
_LIBRARIES = tuple(
    f"{Path(sysconfig.get_path(name)).resolve()}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def is_users(file: str) -> bool:
    """Whether a file is neither of this project nor of an installed package."""
    path = Path(file)
    if file.startswith("<") or path.is_relative_to(_PACKAGE) or "gfb_integrations" in path.parts:
        return False
    return not str(path.resolve()).startswith(_LIBRARIES)


def users_frames(error: BaseException, files: Collection[str] = ()) -> list[traceback.FrameSummary]:
    """The user's own frames in an error's traceback, outermost first; ``files`` count as theirs."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if frame.filename in files or is_users(frame.filename)]


def failed_in(error: BaseException) -> str:
    """Type and message of an error, and below them the lines of the user that it came through, if any."""
    said = f"{type(error).__name__}: {error}".rstrip(". ")
    lines = "".join(traceback.format_list(users_frames(error))).rstrip()
    return f"{said}\n{lines}\n" if lines else f"{said}. "
