"""The distribution: what it ships, what importing it costs, and that its metadata is true."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gfb_brevitas

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "gfb_brevitas"
INTEGRATIONS = ROOT / "integrations" / "gfb_integrations"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

OPTIONAL = {
    "finn",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxoptimizer",
    "onnxruntime",
    "onnxscript",
    "optuna_dashboard",
    "plotly",
    "qonnx",
    "sklearn",
}
TERMINAL = {"rich", "typer"}


def modules_loaded_by(statements: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``statements``, which must not start CUDA."""
    program = (
        f"import sys\n{statements}\n"
        "import torch\n"
        "assert not torch.cuda.is_initialized(), 'CUDA was initialised'\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def import_all_of(package: str) -> str:
    """Statements that import every module of ``package``."""
    return (
        f"import importlib, pkgutil, {package}\n"
        f"for module in pkgutil.walk_packages({package}.__path__, '{package}.'):\n"
        "    if not module.name.endswith('.__main__'):\n"
        "        importlib.import_module(module.name)"
    )


def imported_by(source: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that ``source`` imports, inside functions as well."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def sources(*packages: Path) -> list[Path]:
    return sorted(source for package in packages for source in package.rglob("*.py"))


# --- importing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["gfb_brevitas", "gfb_integrations"])
def test_import_is_light(package: str) -> None:
    assert modules_loaded_by(f"import {package}") & (OPTIONAL | TERMINAL) == set()


def test_no_module_of_the_core_loads_an_optional_dependency() -> None:
    assert modules_loaded_by(import_all_of("gfb_brevitas")) & OPTIONAL == set()


@pytest.mark.parametrize("source", sources(CORE), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_does_not_import_what_is_to_its_right(source: Path) -> None:
    forbidden = OPTIONAL | {"brevitas.export"}
    if "cli" not in source.relative_to(CORE).with_suffix("").parts:
        forbidden |= {"gfb_integrations"}  # the command offers exports; nothing else knows them
    found = [
        f"{source.name}:{line} imports {name}"
        for line, name in imported_by(source)
        if any(f"{name}.".startswith(f"{module}.") for module in forbidden)
    ]
    assert found == []


# --- what is shipped ---------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["gfb_brevitas", "gfb_integrations"])
def test_package_is_marked_as_typed(package: str) -> None:
    assert importlib.resources.files(package).joinpath("py.typed").is_file()


def test_version_is_the_distributions() -> None:
    assert gfb_brevitas.__version__ == importlib.metadata.version("gfb-brevitas") == PROJECT["version"]


def test_changelog_has_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert PROJECT["version"] in headings


def test_console_script_lists_its_commands() -> None:
    from typer.testing import CliRunner

    (script,) = importlib.metadata.entry_points(group="console_scripts", name="gfb")
    result = CliRunner().invoke(script.load(), ["--help"])
    assert result.exit_code == 0, result.output
    assert "run" in result.output


def test_every_public_name_exists() -> None:
    assert [name for name in gfb_brevitas.__all__ if not hasattr(gfb_brevitas, name)] == []


# --- dependencies ------------------------------------------------------------------------------


def direct_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    developed = [Requirement(text) for text in extras["dev"]]
    included = {
        extra
        for requirement in developed
        if requirement.name == "gfb-brevitas"
        for extra in requirement.extras
    }
    texts = [*PROJECT["dependencies"], *(text for extra in sorted(included) for text in extras[extra])]
    requirements = [*(Requirement(text) for text in texts), *developed]
    return [requirement for requirement in requirements if requirement.name != "gfb-brevitas"]


@pytest.mark.parametrize("requirement", direct_requirements(), ids=str)
def test_constraints_pin_every_requirement_inside_its_range(requirement: Requirement) -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    version = pins[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)
    assert "+" not in version, "a local version would exclude the other builds of the same release"


def texts() -> list[Path]:
    """All that people read or run, but for the tests."""
    written = [*ROOT.glob("*.md"), ROOT / "Makefile"]
    for folder in (ROOT / "docs", ROOT / "examples", CORE, INTEGRATIONS):
        written += [file for kind in ("md", "py", "ipynb", "txt") for file in folder.rglob(f"*.{kind}")]
    return written


def test_install_commands_name_extras_that_exist() -> None:
    commands = (
        r"""(?:install |editable )['"]\.\[([\w,]+)\]|install_command\("([\w,]+)"\)|extra="(\w+)", purpose"""
    )
    named = {
        extra.strip()
        for file in texts()
        for found in re.findall(commands, file.read_text(encoding="utf-8"))
        for extra in "".join(found).split(",")
    }
    assert {"export", "report", "mlflow", "postgresql"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


def test_nobody_is_told_to_install_the_package_by_its_name() -> None:
    # It is not on the package index: what is there under its name one day may be anybody's.
    by_name = re.compile(r"(pip|pipx|uv) [^\n]*(install|add) [^\n]*gfb[-_]brevitas(?![-_\w]*/)")
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in texts()
        for line in file.read_text(encoding="utf-8").splitlines()
        if by_name.search(line)
    ]
    assert found == []
