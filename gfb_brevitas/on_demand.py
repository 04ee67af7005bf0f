"""Packages whose names are imported when they are first used: what needs no PyTorch starts without it."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from inspect import getsource
from typing import Any


def names_on_demand(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package.

    The package writes ordinary imports, which type checkers and editors read, in a block that does not run::

        if TYPE_CHECKING:
            from package.module import name
        else:
            __getattr__, __dir__ = names_on_demand(__name__)

    The names of that block, and modules of the package, are imported one by one when they are asked for.
    (``lazy_loader`` does the same with a stub file beside ``__init__.py``.)

    Args:
        package: Full name of the package, which is being imported.
    """
    namespace = vars(sys.modules[package])
    modules = dict(_imports(getsource(sys.modules[package])))

    def get(name: str) -> Any:
        if name in modules and modules[name] != package:
            namespace[name] = getattr(importlib.import_module(modules[name]), name)
        elif name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        else:
            importlib.import_module(f"{package}.{name}")
        return namespace[name]

    return get, lambda: sorted(namespace.keys() | modules)


def _imports(source: str) -> Iterator[tuple[str, str]]:
    """Names that a source imports if ``TYPE_CHECKING``, and from where."""
    for block in ast.parse(source).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for statement in block.body:
                if isinstance(statement, ast.ImportFrom) and statement.module:
                    yield from ((alias.name, statement.module) for alias in statement.names)
