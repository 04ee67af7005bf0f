"""``gfb run``, ``gfb resume``, ``gfb schema``: what is typed; PyTorch is loaded once something is to run."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Annotated

import typer

from gfb_brevitas.cli.output import AsJson, errors_in_one_line, output_kept_for, tell
from gfb_brevitas.cli.programs import load_main
from gfb_brevitas.configuration.document import Document, read_document
from gfb_brevitas.configuration.keeping import document_of
from gfb_brevitas.errors import GfbError

_CONFIGURATION = (".yaml", ".yml")
_configured = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def run(
    context: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|PROGRAM",
            help="A configuration (YAML), or a Python file with a function main(arguments).",
        ),
    ],
) -> None:
    """Run a search: a configuration file, an example, or a program of your own.

    Repeating the command goes on with a run that was stopped.

    gfb run search.yaml search.rounds=3 run_folder=runs/third

    All settings of a configuration, what they do and their defaults: docs/cli.md, or gfb schema.

    What follows the name of a program is passed on to it:

    gfb run examples/digits --seed 1

    gfb run examples/digits --help
    """
    if program in ("-h", "--help"):
        typer.echo(context.get_help())
    elif program.endswith(_CONFIGURATION):
        _configured(args=[program, *context.args], prog_name="gfb run")
    else:
        _run_program(program, context.args)


@_configured.command()
def _run_configuration(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration, a YAML file.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Settings of the file to change, e.g. search.seed=1."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the search of a configuration file, or go on with it."""
    with errors_in_one_line(goes_on=True):
        document = read_document(config)
        for assignment in settings or []:
            document = document.with_override(assignment)
        _carry_out(document, quiet=quiet, as_json=as_json)


def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was started with a configuration file."""
    with errors_in_one_line(goes_on=True):
        _carry_out(document_of(folder), quiet=quiet, as_json=as_json)


def schema() -> None:
    """Print the JSON schema of configuration files, for editors."""
    from gfb_brevitas.configuration import RunConfiguration

    tell(json.dumps(RunConfiguration.model_json_schema(), indent=2))


def _run_program(program: str, arguments: list[str]) -> None:
    with errors_in_one_line(goes_on=True):
        try:
            load_main(program)(arguments)
        except GfbError:
            raise
        except Exception as error:
            # From the program on: what called it is of no use to its author.
            rest = error.__traceback__ and error.__traceback__.tb_next
            traceback.print_exception(error.with_traceback(rest))
            raise typer.Exit(1) from None


def _carry_out(document: Document, *, quiet: bool, as_json: bool) -> None:
    from gfb_brevitas.cli.running import carry_out
    from gfb_brevitas.configuration import ConfiguredRun

    with output_kept_for(as_json):
        run = ConfiguredRun.of(document)
    carry_out(run, quiet=quiet, as_json=as_json)
