"""User code by name: ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import ConfigurationError

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def load_object(reference: str, folder: Path | None = None) -> Any:
    """What ``module:name`` refers to.

    Args:
        reference: Module and name, e.g. ``"mynetwork:make"``.
        folder: Where modules are looked for before Python's own places; by default the current folder.

    Raises:
        ConfigurationError: If there is no such module or name, naming what is missing. What the module
            itself raises while it is imported goes through.
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
        ConfigurationError: As :func:`load_object`.
    """
    found = load_object(reference, folder)
    is_function = callable(found) and not hasattr(found, "__iter__")
    return found() if is_function else found


def _imported(module: str, reference: str, place: Path) -> Any:
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
