"""User code by name: ``module:function``."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from gfb_brevitas.errors import ConfigurationError, GfbError

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def load_object(reference: str, folder: Path | None = None) -> Any:
    """What ``module:name`` refers to.

    Args:
        reference: Module and name, e.g. ``"mynetwork:make"``.
        folder: Where modules are looked for before Python's own places; by default the current folder.

    Raises:
        ConfigurationError: If there is no such module or name, naming what is missing, or the module raises
            something while it is imported; with the traceback from the user's code on.
    """
    if not _REFERENCE.fullmatch(reference):
        raise ConfigurationError(
            f"User code is named as module:function, e.g. mynetwork:make; got {reference!r}."
        )
    module, _, name = reference.partition(":")
    place = Path.cwd() if folder is None else folder.resolve()
    _make_importable(place)
    found: Any = _imported(module, reference, place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{reference!r}: the module {module!r} has no {name!r}.")
        found = getattr(found, part)
    return found


def call(reference: str, folder: Path | None = None) -> Any:
    """What the function ``module:function`` returns, called without arguments; anything else as it is.

    Raises:
        ConfigurationError: As :func:`load_object`, or if the function takes arguments or raises something.
    """
    found = load_object(reference, folder)
    if not callable(found) or hasattr(found, "__iter__"):
        return found
    _require_no_arguments(found, reference)
    with users_code(f"{reference!r} failed"):
        return found()


def _require_no_arguments(function: Any, reference: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in
        return
    try:
        signature.bind()
    except TypeError as error:
        raise ConfigurationError(
            f"{reference!r} is called without arguments, and it takes {signature}: {error}. Name a function "
            "that needs none."
        ) from None


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Tell what the user's code raises, ``sys.exit()`` too, with its own part of the traceback."""
    try:
        yield
    except GfbError:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        error.__traceback__ = _fromusers_code_on(error.__traceback__)
        text = "".join(traceback.format_exception(error)).rstrip()
        raise ConfigurationError(f"{what}:\n{text}") from error


def _fromusers_code_on(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_between(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_between(file: str) -> bool:
    """Whether a file is on the way from here into the user's code."""
    own = Path(file).parent == Path(__file__).parent
    return own or file == importlib.__file__ or file.startswith("<frozen importlib")


def _imported(module: str, reference: str, place: Path) -> Any:
    with users_code(f"{reference!r}: the module {module!r} failed while it was imported"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                raise ConfigurationError(
                    f"{reference!r}: there is no module {error.name!r} in {str(place)!r} or installed."
                ) from None
            raise ConfigurationError(
                f"{reference!r}: the module {module!r} needs {error.name!r}, which is not installed."
            ) from error


def _make_importable(folder: Path) -> None:
    # It stays in front: functions of the module may import its neighbours later.
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
