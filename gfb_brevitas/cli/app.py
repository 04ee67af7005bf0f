"""The ``gfb`` command: what it is called with, and which module does it."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from gfb_brevitas.cli import looking, starting, using
from gfb_brevitas.cli.output import errors_in_one_line

app = typer.Typer(
    name="gfb",
    help="Search the best bit width for every layer of a Brevitas model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SEARCH, _LOOK, _USE = "Search", "Look at runs and models", "Use the result"
PASSED_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}


def _version(asked: bool) -> None:
    if asked:
        from gfb_brevitas import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search the best bit width for every layer of a Brevitas model."""


app.command(no_args_is_help=True, context_settings=PASSED_ON, rich_help_panel=_SEARCH)(starting.run)
app.command(no_args_is_help=True, rich_help_panel=_SEARCH)(starting.resume)
app.command(rich_help_panel=_SEARCH)(starting.schema)
app.command(no_args_is_help=True, rich_help_panel=_LOOK)(looking.inspect)
app.command(no_args_is_help=True, rich_help_panel=_LOOK)(looking.show)
app.command(no_args_is_help=True, rich_help_panel=_LOOK)(looking.compare)
app.command(no_args_is_help=True, rich_help_panel=_LOOK)(looking.report)
app.command(no_args_is_help=True, rich_help_panel=_USE)(using.apply)
app.command(no_args_is_help=True, rich_help_panel=_USE)(using.export)


@app.command(context_settings=PASSED_ON, rich_help_panel=_USE)
def finn(context: typer.Context) -> None:
    """FINN: what it builds, its own estimates, and proof that every stage computes the same.

    The commands: gfb finn --help
    """
    _commands_of("gfb_integrations.finn.cli", context)


@app.command(context_settings=PASSED_ON, rich_help_panel=_LOOK)
def mlflow(context: typer.Context) -> None:
    """MLflow: deliver what a run recorded while the server was away.

    The commands: gfb mlflow --help
    """
    _commands_of("gfb_integrations.mlflow.cli", context)


def _commands_of(module: str, context: typer.Context) -> None:
    with errors_in_one_line():
        commands = importlib.import_module(module)
    commands.app(args=context.args or ["--help"], prog_name=f"gfb {context.info_name}")
