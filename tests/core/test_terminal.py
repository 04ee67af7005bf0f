"""Whatever a name holds, the terminal shows it as it is."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import TextColumn
from typer.testing import CliRunner

import gfb_brevitas as gfb
from gfb_brevitas.cli import app
from gfb_brevitas.cli.output import say
from gfb_brevitas.report import profile_table
from gfb_brevitas.terminal import PlainTable, compact_table, plain_console, print_lines
from tests.core.odd_names import NAMES, NamedLayers

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "gfb_brevitas").rglob("*.py"), *(ROOT / "integrations/gfb_integrations").rglob("*.py")]


def shown(renderable: object) -> str:
    """What a user's own console, with markup and emoji, makes of it."""
    console = Console(file=io.StringIO(), width=400, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_a_table_shows_text_as_it_is(name: str) -> None:
    for part in range(5):
        text = [name if part == k else "x" for k in range(5)]
        table = PlainTable(title=text[0], caption=text[1], show_footer=True, min_width=200)
        table.add_column(text[2], footer=text[3])
        table.add_row(text[4])
        assert name in shown(table), part
    table = compact_table(min_width=200)
    table.title, table.caption = name, name
    table.add_column("x")
    assert shown(table).count(name) == 2


@pytest.mark.parametrize("name", NAMES)
def test_lines_and_errors_show_text_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f": no layer {name}", lead=name)
    plain_console().print(name, soft_wrap=True)
    captured = capsys.readouterr()
    assert captured.err == f"{name}: no layer {name}\n"
    assert captured.out == f"{name}\n"
    console = Console(file=io.StringIO(), width=20, color_system=None)
    print_lines(console, name)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == f"{name}\n"


def test_control_characters_do_not_reach_the_terminal() -> None:
    table = compact_table()
    table.add_column("a\x1b[2Jb")
    assert "a\\x1b[2Jb" in shown(table)


def test_the_names_of_layers_are_in_the_table_of_quantizers() -> None:
    model = NamedLayers()
    profile = gfb.make_searchable(model, model.example).profile
    text = shown(profile_table(profile))
    for name in profile.names:
        assert name in text, name


def test_nothing_else_makes_consoles_and_tables() -> None:
    for path in (*SOURCES, *(ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "rich.markup", path
            if not isinstance(node, ast.Call) or path.name == "terminal.py":
                continue
            called = ast.unparse(node.func)
            if called == TextColumn.__name__:  # a progress line
                assert any(word.arg == "markup" for word in node.keywords), path
            made_of_numbers = path.parent.name == "examples" and called == "Table"
            assert made_of_numbers or called not in (
                "Console",
                "Table",
                "Panel",
                "rich.print",
                "Text.from_markup",
            ), path


@pytest.mark.parametrize(
    "command", [["show"], ["compare"], ["inspect"], ["report"], ["inspect", "x:y", "two"]]
)
def test_a_command_that_fails_names_what_it_got(command: list[str]) -> None:
    ended = CliRunner().invoke(app, [*command, "[/bold]:warning:"], env={"COLUMNS": "200"})
    assert ended.exit_code in (1, 2)
    assert "[/bold]:warning:" in ended.stderr
    assert isinstance(ended.exception, SystemExit)
