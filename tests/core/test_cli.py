"""The command as people use it: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gfb_brevitas.cli import app
from gfb_brevitas.cli.output import put
from gfb_brevitas.extras import install_command
from gfb_brevitas.files import sealed
from tests.core.search.small_problem import SEARCH, run

ROOT = Path(__file__).parents[2]


def gfb(*arguments: object) -> Result:
    """Run the command in this process, as in a terminal of 80 columns."""
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, [str(a) for a in arguments])


def gfb_installed(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    command = Path(sys.executable).with_name("gfb")
    if not command.exists():
        pytest.skip("the command is not installed beside this Python")
    return subprocess.run(
        [command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.fixture(autouse=True)
def path_and_modules_are_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program becomes a module of the process that runs it."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    for name in ("program", "neighbour"):
        sys.modules.pop(name, None)


def program(folder: Path, text: str, name: str = "program.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def assert_one_line(result: Result, *pieces: str) -> None:
    """It failed with one line on the error stream that has the pieces, and no traceback."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    for piece in pieces:
        assert piece in result.stderr, result.stderr


# --- help ----------------------------------------------------------------------------------------


def test_help_lists_the_commands() -> None:
    result = gfb("--help")
    assert result.exit_code == 0
    assert "run " in result.stdout and "show " in result.stdout
    assert gfb().output.strip() == result.stdout.strip()


@pytest.mark.parametrize("command", ["run", "show"])
def test_a_command_without_its_argument_prints_its_help(command: str) -> None:
    alone, helped = gfb(command), gfb(command, "--help")
    assert (alone.exit_code, helped.exit_code) == (2, 0)
    assert "Usage: " in alone.output and alone.output.strip() == helped.output.strip()


def test_the_help_of_run_says_how_to_get_the_programs_own() -> None:
    text = gfb("run", "--help").stdout
    assert "gfb run examples/digits --seed 1" in text
    assert "gfb run examples/digits --help" in text


def test_the_help_of_an_example_is_its_own() -> None:
    ended = gfb_installed("run", ROOT / "examples" / "digits", "--help")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: digits ") and "--run-folder" in ended.stdout


def test_an_unknown_command() -> None:
    result = gfb("serach")
    assert result.exit_code == 2 and "No such command 'serach'" in result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(run_folder=folder)
    return folder


# --- output ---------------------------------------------------------------------------------------


def started(*arguments: object, stdout: Any, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-c", "from gfb_brevitas.cli import app; app()", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["schema"]])
def test_output_that_cannot_be_written(finished: Path, arguments: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    folder = [finished] if "show" in arguments else []
    with open("/dev/full", "w") as full, started(*arguments, *folder, stdout=full) as process:
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (1, "The output cannot be written: No space left on device.\n")


def test_a_reader_that_has_left(finished: Path) -> None:
    with started("show", finished, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(120)) == ("", 1)


@pytest.mark.parametrize(("text", "shown"), [("3 – 4", "3 ? 4"), ("runs/\udcff", "runs/\\udcff")])
def test_a_character_that_the_terminal_lacks(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    put({}, lambda: [text], as_json=False)
    terminal.seek(0)
    assert terminal.read() == f"{shown}\n"


# --- run -----------------------------------------------------------------------------------------

ECHO = "def main(arguments):\n    print(arguments)\n"


@pytest.mark.parametrize("name", ["program.py", "program"])
def test_arguments_are_passed_on_verbatim(tmp_path: Path, name: str) -> None:
    program(tmp_path, ECHO)
    arguments = ["--seed", "1", "-x=2", "--", "--help", "", "a b", "run", "-h", "*"]
    result = gfb("run", tmp_path / name, *arguments)
    assert result.exit_code == 0 and result.stdout == f"{arguments}\n"


def test_a_program_imports_its_neighbours(tmp_path: Path) -> None:
    program(tmp_path, "VALUE = 7\n", "neighbour.py")
    path = program(tmp_path, "import neighbour\ndef main(arguments):\n    print(neighbour.VALUE)\n")
    assert gfb("run", path).stdout == "7\n"


@pytest.mark.parametrize("name", ["nothing", "nothing.py", ".", "..", "/", ""])
def test_a_program_that_is_not_there(name: str) -> None:
    assert_one_line(gfb("run", name), f"ConfigurationError: There is no program {name!r}", "examples/digits")


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    path = program(tmp_path, "# Notes", "notes.md")
    assert_one_line(gfb("run", path), "notes.md' is not a Python file", "ends in .py")


def test_a_program_without_main(tmp_path: Path) -> None:
    path = program(tmp_path, "main = 3\n")
    assert_one_line(gfb("run", path), "program.py' has no function main(arguments)")


@pytest.mark.parametrize("signature", ["", "a, b"])
def test_a_main_that_does_not_take_the_arguments(tmp_path: Path, signature: str) -> None:
    path = program(tmp_path, f"def main({signature}):\n    raise AssertionError\n")
    assert_one_line(gfb("run", path), "must take one argument", f"it is main({signature})")


def test_a_program_that_needs_a_package(tmp_path: Path) -> None:
    path = program(tmp_path, f"import no_such_package\n{ECHO}")
    assert_one_line(
        gfb("run", path),
        "MissingExtraError: ",
        "program.py' needs the package 'no_such_package'",
        install_command("examples,export,plots,report"),
    )


def test_an_error_of_the_package_is_one_line_however_long(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        "import gfb_brevitas\n"
        "def main(arguments):\n"
        f"    raise gfb_brevitas.CheckpointError('The file [red]{'x' * 200}/a b[/] is missing.')\n",
    )
    assert_one_line(gfb("run", path), f"CheckpointError: The file [red]{'x' * 200}/a b[/] is missing.")


def test_an_error_of_the_program_is_its_own_traceback(tmp_path: Path) -> None:
    path = program(tmp_path, "def main(arguments):\n    raise RuntimeError('mine')\n")
    result = gfb("run", path)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "RuntimeError: mine"
    assert str(path) in lines[1] and len([line for line in lines if "File " in line]) == 1


def test_the_exit_status_of_a_program_is_kept(tmp_path: Path) -> None:
    path = program(tmp_path, "import sys\ndef main(arguments):\n    sys.exit(7)\n")
    assert gfb("run", path).exit_code == 7


def test_an_interrupted_program(tmp_path: Path) -> None:
    path = program(tmp_path, "def main(arguments):\n    raise KeyboardInterrupt\n")
    result = gfb("run", path)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted. Run the same command again to go on where it stopped.\n"


def test_a_program_may_have_the_name_of_another_module(tmp_path: Path) -> None:
    path = program(tmp_path, ECHO.replace("print(", "print(__name__, "), "random.py")
    import random

    assert gfb("run", path).stdout == "gfb_program_random []\n"
    assert sys.modules["random"] is random
    sys.modules.pop("gfb_program_random")


@pytest.mark.parametrize("name", ["nothing.yaml", "nothing.yml"])
def test_a_configuration_that_is_not_there(name: str) -> None:
    assert_one_line(gfb("run", name), f"Error: {name!r} cannot be read: No such file or directory.\n")


# --- show ----------------------------------------------------------------------------------------


def copied(run_folder: Path, place: Path, summary: str) -> Path:
    """A copy of a run with another summary."""
    folder = place / "run"
    shutil.copytree(run_folder, folder)
    with suppress(ValueError, AttributeError):  # of a summary that is none
        summary = json.dumps(sealed(json.loads(summary)))
    (folder / "summary.json").write_text(summary)
    return folder


def test_show_prints_the_numbers_the_budgets_and_the_widths(finished: Path) -> None:
    result = gfb("show", finished)
    assert result.exit_code == 0
    summary = json.loads((finished / "summary.json").read_text())
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["metric", f"{summary['metric']:.6g}"] in rows
    assert ["epochs", str(SEARCH.epochs)] in rows
    for cost in summary["costs"]:
        figures = [f"{cost['value']:.6g}", f"{cost['limit']:.6g}", f"{cost['use']:.1%}"]
        assert [cost["name"], *figures, cost["unit"]] in rows
    for name, bits in summary["allocation"].items():
        assert [name, str(bits)] in rows


def test_show_fits_into_80_columns_whatever_the_names(finished: Path, tmp_path: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    name = "features.transition.denselayer." * 4 + "weight_quant"
    summary["allocation"][name] = 3
    folder = copied(finished, tmp_path, json.dumps(summary))
    result = gfb("show", folder)
    assert result.exit_code == 0
    path, *tables = result.stdout.splitlines()
    assert path == str(folder)  # whole, however long
    assert max(map(len, tables)) <= 80
    assert "".join(re.sub(r"\s+\d* *$", "", line) for line in tables).endswith(name)


def test_show_of_a_budget_that_is_exceeded(finished: Path, tmp_path: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    summary["costs"][0] |= {"use": 1.25, "feasible": False}
    folder = copied(finished, tmp_path, json.dumps(summary))
    assert "125%!" in gfb("show", folder).stdout


def test_looking_that_is_interrupted_does_not_go_on(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gfb_brevitas.cli.looking._loaded", interrupt)
    result = gfb("show", finished)
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_show_of_no_folder(tmp_path: Path) -> None:
    assert_one_line(gfb("show", tmp_path / "none"), "CheckpointError: There is no folder", "none'")


def test_show_of_another_folder(tmp_path: Path) -> None:
    assert_one_line(gfb("show", tmp_path), "holds no run. Give the folder of one")


def test_show_of_a_run_that_has_not_ended(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path, "")
    (folder / "summary.json").unlink()
    result = gfb("show", folder)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "was stopped from outside" in text and "its last record is of 20" in text
    assert "Done so far: 2 of 2 rounds, 5 epochs. Repeating its command lets it go on." in text
    last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
    rows = [line.split() for line in result.stdout.splitlines()]
    assert all([name, str(bits)] in rows for name, bits in last["allocation"].items())


def without(key: str) -> Any:
    return lambda summary: {name: value for name, value in summary.items() if name != key}


@pytest.mark.parametrize(
    "damage",
    [
        lambda summary: "{",
        lambda summary: "",
        lambda summary: [summary],
        lambda summary: 3,
        without("allocation"),
        without("costs"),
        lambda summary: {**summary, "allocation": [3, 4]},
        lambda summary: {**summary, "costs": [{"name": "weight_size"}]},
        lambda summary: {**summary, "costs": [{**summary["costs"][0], "use": "much"}]},
    ],
)
def test_show_of_a_damaged_summary(finished: Path, tmp_path: Path, damage: Any) -> None:
    damaged = damage(json.loads((finished / "summary.json").read_text()))
    text = damaged if isinstance(damaged, str) else json.dumps(damaged)
    folder = copied(finished, tmp_path, text)
    assert_one_line(gfb("show", folder), "CheckpointError: ", "summary.json' is", "damaged")
