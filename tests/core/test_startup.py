"""What a command loads before it does anything: PyTorch only where something is to be run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.search.small_problem import run

HEAVY = {"brevitas", "cma", "mlflow", "onnx", "optuna", "sympy", "torch"}
PROGRAM = """if True:
    import sys
    from gfb_brevitas.cli import app
    try:
        app(prog_name="gfb")
    finally:
        print("LOADED", *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def started(*arguments: object, **environment: str) -> tuple[int, str, set[str]]:
    """A command in a fresh interpreter: its exit status, what it printed, which heavy packages it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=120,
        check=False,
    )
    said, _, loaded = done.stderr.partition("LOADED")
    assert loaded, done.stderr
    return done.returncode, done.stdout + said, HEAVY & set(loaded.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(run_folder=folder)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["schema"], ["run", "--help"]]
    + [[name, "--help"] for name in ("resume", "inspect", "show", "compare", "report", "apply", "export")],
    ids=" ".join,
)
def test_help_and_schema(arguments: list[str]) -> None:
    assert started(*arguments)[::2] == (0, set())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    words = {"COMP_WORDS": "gfb comp", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "gfb comp"}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    status, said, heavy = started(_GFB_COMPLETE=f"complete_{shell}", **words)
    assert "compare" in said and heavy == set(), (status, said)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_looking_at_runs(finished: Path, options: list[str]) -> None:
    status, said, heavy = started("show", finished, *options)
    assert (status, heavy) == (0, set()) and "weight_size" in said
    status, said, heavy = started("compare", finished, finished, *options)
    assert (status, heavy) == (0, set()) and str(finished.name) in said


@pytest.mark.parametrize(
    "arguments",
    [
        "show nowhere",
        "compare nowhere",
        "resume nowhere",
        "run nowhere.yaml",
        "run nowhere.py",
        "run wrong.yaml",
    ],
)
def test_a_wrong_place(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("model: [\nloss: mse\n")
    command, name = arguments.split()
    status, said, heavy = started(command, tmp_path / name)
    assert (status, heavy) == (1, set()) and name in said and "Error" in said


def test_a_folder_that_is_no_run_of_a_configuration(finished: Path) -> None:
    status, said, heavy = started("resume", finished)
    assert (status, heavy) == (1, set()) and "configuration file" in said


def test_what_needs_a_model_loads_pytorch() -> None:
    status, said, heavy = started("inspect", "json:loads")
    assert status == 1 and "json:loads" in said and "torch" in heavy
