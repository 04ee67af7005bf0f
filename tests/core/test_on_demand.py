"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gfb_brevitas

PACKAGES = [
    "gfb_brevitas",
    "gfb_brevitas.configuration",
    "gfb_brevitas.report",
    "gfb_brevitas.search",
    "gfb_integrations.finn",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    assert [public for public in package.__all__ if not hasattr(package, public)] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_no_name_on_demand_is_that_of_a_module(name: str) -> None:
    # The import system would put the module in the name's place.
    package = importlib.import_module(name)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom) and node.module != name]
    on_demand = {alias.name for node in imports for alias in node.names}
    assert on_demand
    assert on_demand & {module.name for module in pkgutil.iter_modules(package.__path__)} == set()
    assert on_demand <= set(package.__all__)


def test_what_is_imported_is_kept() -> None:
    assert gfb_brevitas.fit is vars(gfb_brevitas)["fit"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    for name in ("fitt", "_fit", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'gfb_brevitas' has no attribute '{name}'"):
            getattr(gfb_brevitas, name)
    with pytest.raises(ImportError, match="cannot import name 'fitt'"):
        from gfb_brevitas import fitt  # type: ignore[attr-defined]  # noqa: F401


def in_a_fresh_interpreter(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_modules_of_the_package_need_no_import_of_their_own() -> None:
    program = (
        "import gfb_brevitas as gfb; print(gfb.samplers.CmaSampler is gfb.CmaSampler, gfb.dataflow.Target)"
    )
    assert in_a_fresh_interpreter(program) == "True <class 'gfb_brevitas.dataflow.accelerator.Target'>"


def test_a_star_import_has_all_names() -> None:
    program = "from gfb_brevitas import *; print(fit.__module__, Budget.__name__)"
    assert in_a_fresh_interpreter(program) == "gfb_brevitas.search.alternation Budget"


def test_settings_made_first_know_every_evaluator_and_cost() -> None:
    program = (
        "import gfb_brevitas as gfb\n"
        "from gfb_brevitas.costs import cost_from_name\n"
        "print(gfb.SearchConfig(evaluator='prepared').evaluator)\n"
        "print(cost_from_name('fpga_resource', resource='lut', board='Pynq-Z1').name)"
    )
    assert in_a_fresh_interpreter(program) == "prepared\nlut"
