"""The page of the command: what typer knows of commands, and the schema of configuration files of settings.

Between ``<!-- commands -->`` and ``<!-- end of commands -->`` in a page stand all commands with their
arguments and options, between ``<!-- settings -->`` and ``<!-- end of settings -->`` all settings of a
configuration file. On the site names are links; for readers of the file ``python docs/hooks/commands.py``
writes the same into it.
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
    return filled(markdown, links=True)


def filled(markdown: str, *, links: bool) -> str:
    """A page with what it asks for, names as links or as code."""
    for name, lines in (("commands", _commands), ("settings", _settings)):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = markdown.partition(begin)
        if found:
            text = "\n".join(lines()).strip()
            text = text if links else _for_readers_of_the_file(text)
            markdown = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return markdown


def _for_readers_of_the_file(text: str) -> str:
    text = re.sub(r"<autoref [^>]*><code>([^<]*)</code></autoref>", r"`\1`", text)
    rows = re.compile(r"^\| .*$", flags=re.MULTILINE)
    return rows.sub(lambda row: re.sub("`[^`]*`", lambda code: code[0].replace("|", "\\|"), row[0]), text)


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
            about = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
            yield from (_plain(about), "", *_model_table(kind))
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
    from gfb_brevitas.configuration.descriptions import documented_attributes

    return {name: _plain(text) for name, text in documented_attributes(kind).items()}


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

if __name__ == "__main__":
    _page = ROOT / "docs" / "cli.md"
    _page.write_text(filled(_page.read_text(encoding="utf-8"), links=False), encoding="utf-8")
