"""Programs of the user: Python files with a function ``main(arguments)``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import ConfigurationError, MissingExtraError
from gfb_brevitas.extras import install_command


def load_main(program: str) -> Callable[[list[str]], object]:
    """The function ``main(arguments)`` of a Python file.

    Raises:
        ConfigurationError: If there is no such file or function.
        MissingExtraError: If the file needs a package that is not installed.
    """
    path = _program_file(program)
    specification = importlib.util.spec_from_file_location(_module_name(path), path)
    if specification is None or specification.loader is None:
        raise ConfigurationError(f"{str(path)!r} is not a Python file. Give one whose name ends in .py.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        specification.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{str(path)!r} needs the package {error.name!r}, which is not installed. All that the examples "
            "need is installed by: " + install_command("examples,export,plots,report")
        ) from error
    return _main_of(module, path)


def _module_name(path: Path) -> str:
    """The file's own name, by which other processes find its classes; never that of another module."""
    known = sys.modules.get(path.stem)
    is_another = known is not None and getattr(known, "__file__", None) != str(path)
    return f"gfb_program_{path.stem}" if is_another or path.stem in sys.stdlib_module_names else path.stem


def _program_file(program: str) -> Path:
    path = Path(program)
    candidates = [path, path.with_name(f"{path.name}.py")] if path.name else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigurationError(
        f"There is no program {program!r}. Give a Python file, e.g. examples/digits (the examples are in the "
        "repository, not in the installed package)."
    )


def _main_of(module: object, path: Path) -> Callable[[list[str]], object]:
    main: Any = getattr(module, "main", None)
    if not callable(main):
        raise ConfigurationError(f"{str(path)!r} has no function main(arguments). Add one.")
    try:
        inspect.signature(main).bind([])
    except TypeError as error:
        raise ConfigurationError(
            f"The function main of {str(path)!r} must take one argument, the list of command-line arguments; "
            f"it is main{inspect.signature(main)}."
        ) from error
    function: Callable[[list[str]], object] = main
    return function
