"""The reference in docs/cli.md: what typer knows of commands, and the schema of files of settings.

    python docs/hooks/commands.py

writes it behind ``<!-- commands -->`` and ``<!-- settings -->``, up to ``<!-- end -->``, so that it can be
read in the repository, too. Building the site makes names of the package in it links.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
PASSED_ON = {"finn": "gfb_integrations.finn.cli", "mlflow": "gfb_integrations.mlflow.cli"}
"""Commands with commands of their own, and the modules of these."""


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Link names of the package to their pages."""
    if page.file.src_uri != PAGE.name:
        return markdown
    link = r'<autoref optional identifier="\1"><code>\1</code></autoref>'
    return re.sub(r"`(gfb_(?:brevitas|integrations)[\w.]*)`", link, markdown)


def filled(markdown: str) -> str:
    """The page with its reference written anew."""
    for marker, lines in (("commands", _commands), ("settings", _settings)):
        written = "\n".join(lines()).strip()
        text = f"<!-- {marker} -->\n\n{written}\n\n<!-- end -->"
        pattern = rf"<!-- {marker} -->\n.*?<!-- end -->"
        markdown, found = re.subn(pattern, lambda _, text=text: text, markdown, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"{PAGE} must have one place for {marker}; it has {found}.")
    return markdown


def _commands() -> Iterator[str]:
    from gfb_brevitas.cli import app, starting

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        if name in PASSED_ON:
            yield from (f"### gfb {name}", "", _help(command), "")
            inner: Any = typer.main.get_command(importlib.import_module(PASSED_ON[name]).app)
            for part, below in getattr(inner, "commands", {name: inner}).items():
                yield from _command(f"gfb {name} {part}", below, level=4)
        elif name == "run":
            yield from _command("gfb run", command, level=3)
            configured: Any = typer.main.get_command(starting._configured)
            yield from ("With a configuration file:", "", *_parameters(configured))
        else:
            yield from _command(f"gfb {name}", command, level=3)


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {name}", "", _help(command), "", *_parameters(command))


def _help(command: Any) -> str:
    text = inspect.cleandoc(command.help or "")
    return re.sub(r"^(gfb .+)$", r"    \1", text, flags=re.MULTILINE)


def _parameters(command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    rows = [_parameter(parameter) for parameter in shown if parameter.name != "help"]
    if rows:
        yield from ("| argument or option | what it is |", "|---|---|", *rows, "")


def _parameter(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    names = [parameter.metavar or parameter.name.upper()] if is_argument else parameter.opts
    names = [name.replace("|", " or ") for name in names]  # a bar would end a cell
    shown = ", ".join(f"`{name}`" for name in names)
    if not is_argument and not parameter.is_flag:
        shown += f" `{parameter.metavar or names[0].strip('-').upper()}`"
    text = (parameter.help or "").strip()
    default = parameter.default
    if not is_argument and not callable(default) and default not in (None, False, (), ""):
        text += f" Default: `{default}`."
    return _row(shown, text)


def _settings() -> Iterator[str]:
    from gfb_brevitas.configuration import schema
    from gfb_brevitas.search import SearchConfig, TrainingConfig

    yield from _model_table(schema.RunConfiguration)
    for title, kinds in (
        ("rules", (schema.FixRule, schema.RangeRule, schema.TieRule)),
        ("budgets", (schema.PaperBudgets, schema.CostBudget, schema.BoardBudget)),
        ("mlflow", (schema.Mlflow,)),
        ("dashboard", (schema.Dashboard,)),
    ):
        yield from (f"#### {title}", "")
        for kind in kinds:
            yield from (_first_sentence(kind), "", *_model_table(kind))
    for title, settings in (("search", SearchConfig), ("training", TrainingConfig)):
        yield from (f"#### {title}", "", *_dataclass_table(settings))


def _model_table(kind: type[BaseModel]) -> Iterator[str]:
    described = attribute_descriptions(kind)
    yield from _head(bool(described))
    for name, field in kind.model_fields.items():
        default = _required() if field.default is PydanticUndefined else _default(field.default)
        if field.default_factory is not None:
            default = _default(field.get_default(call_default_factory=True))
        yield _row(f"`{name}`", default, *((described[name],) if described else ()))
    yield ""


def _dataclass_table(kind: type[Any]) -> Iterator[str]:
    described = attribute_descriptions(kind)
    yield from _head(True)
    field: Field[Any]
    for field in fields(kind):
        default = _required() if field.default is MISSING else _default(field.default)
        yield _row(f"`{field.name}`", default, described.get(field.name, ""))
    yield ""


def _head(described: bool) -> Iterable[str]:
    if described:
        return ("| setting | default | what it does |", "|---|---|---|")
    return ("| setting | default |", "|---|---|")


def _first_sentence(kind: type) -> str:
    return as_markdown(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " "))


def _required() -> str:
    return "must be given"


def _default(value: object) -> str:
    if value is None or value == () or value == [] or value == {}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    parts = text.replace("\n", " ").split("`")  # bars in code need no mark
    return "`".join(part.replace("|", "\\|") if i % 2 == 0 else part for i, part in enumerate(parts))


for _folder in (ROOT, ROOT / "integrations"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
from gfb_brevitas.configuration.descriptions import as_markdown, attribute_descriptions  # noqa: E402

if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
