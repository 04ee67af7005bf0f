"""The page of the command: what typer knows of commands, and the schema of configuration files of settings.

``<!-- commands -->`` in a page becomes all commands with their arguments and options, ``<!-- settings -->``
all settings of a configuration file.
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
PASSED_ON = {"finn": "gfb_integrations.finn.cli", "mlflow": "gfb_integrations.mlflow.cli"}
"""Commands with commands of their own, and the modules of these."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for."""
    for marker, lines in (("<!-- commands -->", _commands), ("<!-- settings -->", _settings)):
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(lines()))
    return markdown


def _commands() -> Iterator[str]:
    from gfb_brevitas.cli import app, running

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        if name in PASSED_ON:
            yield from (f"### gfb {name}", "", _help(command), "")
            inner: Any = typer.main.get_command(importlib.import_module(PASSED_ON[name]).app)
            for part, below in getattr(inner, "commands", {name: inner}).items():
                yield from _command(f"gfb {name} {part}", below, level=4)
        elif name == "run":
            yield from _command("gfb run", command, level=3)
            configured: Any = typer.main.get_command(running._configured)
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
        yield from (f"### {title}", "")
        for kind in kinds:
            yield from (_plain(inspect.cleandoc(kind.__doc__ or "")), "", *_model_table(kind))
    for title, settings in (("search", SearchConfig), ("training", TrainingConfig)):
        yield from (f"### {title}", "", *_dataclass_table(settings))


def _model_table(kind: type[BaseModel]) -> Iterator[str]:
    described = _attributes(kind)
    yield from _head(bool(described))
    for name, field in kind.model_fields.items():
        default = _required() if field.default is PydanticUndefined else _default(field.default)
        if field.default_factory is not None:
            default = _default(field.get_default(call_default_factory=True))
        yield _row(f"`{name}`", default, *((described[name],) if described else ()))
    yield ""


def _dataclass_table(kind: type[Any]) -> Iterator[str]:
    described = _attributes(kind)
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


def _required() -> str:
    return "must be given"


def _default(value: object) -> str:
    if value is None or value == () or value == [] or value == {}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _attributes(kind: type) -> dict[str, str]:
    """Descriptions of attributes, from a docstring in Google's style."""
    text = inspect.cleandoc(kind.__doc__ or "")
    found = re.search(r"^Attributes:\n((?: {4}.*\n?|\n)+)", text, flags=re.MULTILINE)
    if found is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", found[1], flags=re.MULTILINE)
    return {name: _plain(" ".join(description.split())) for name, description in entries}


def _plain(text: str) -> str:
    text = re.sub(r":\w+:`~?([\w.]+)`", r'<autoref optional identifier="\1"><code>\1</code></autoref>', text)
    return text.replace("``", "`").replace(" [ours]", "")


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    parts = text.replace("\n", " ").split("`")  # bars in code need no mark
    return "`".join(part.replace("|", "\\|") if i % 2 == 0 else part for i, part in enumerate(parts))


for _folder in (ROOT, ROOT / "integrations"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
