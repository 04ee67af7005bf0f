"""The ``gfb`` command."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from gfb_brevitas.errors import CheckpointError, ConfigurationError, GfbError, MissingExtraError

app = typer.Typer(
    name="gfb",
    help="Search the best bit width for every layer of a Brevitas model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    """Search the best bit width for every layer of a Brevitas model."""


@app.command(
    no_args_is_help=True,
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
)
def run(
    context: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            metavar="PROGRAM",
            help="A Python file with a function main(arguments); `.py` may be left out.",
        ),
    ],
) -> None:
    """Run an example, or a program of your own. What follows its name is passed on to it.

    For example: gfb run examples/digits --seed 1

    The program's own help: gfb run examples/digits --help
    """
    if program in ("-h", "--help"):
        typer.echo(context.get_help())
        return
    try:
        _load_main(program)(context.args)
    except KeyboardInterrupt:
        _say("Interrupted. Run the same command again to go on where it stopped.")
        raise typer.Exit(130) from None
    except GfbError as error:
        _fail(error)
    except Exception as error:
        # From the program on: what called it is of no use to its author.
        traceback.print_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        raise typer.Exit(1) from None


@app.command(no_args_is_help=True)
def show(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a run that has ended.")],
) -> None:
    """Print the result of a run: its numbers, its budgets and the bit width of every quantizer."""
    from gfb_brevitas.report import summary_tables

    try:
        path = _summary_of(folder)
        try:
            tables = summary_tables(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{str(path)!r} is not the summary of a run, or damaged ({type(error).__name__}: {error}). "
                "Run the command of the run again to have it written anew."
            ) from error
    except GfbError as error:
        _fail(error)
    console = Console()
    console.print(str(folder), markup=False, highlight=False, soft_wrap=True)
    for table in tables:
        console.print()
        console.print(table)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
)
def finn(context: typer.Context) -> None:
    """FINN: what it builds, its own estimates, and proof that every stage computes the same.

    The commands: gfb finn --help
    """
    try:
        commands = importlib.import_module("gfb_integrations.finn.cli")
    except GfbError as error:
        _fail(error)
    commands.app(args=context.args or ["--help"], prog_name="gfb finn")


def _summary_of(folder: Path) -> Path:
    path = folder / "summary.json"
    if path.is_file():
        return path
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {str(folder)!r}. Give the folder of a run.")
    if (folder / "config.json").is_file():
        raise CheckpointError(
            f"The run in {str(folder)!r} has not ended. Run its command again to let it go on."
        )
    raise CheckpointError(f"{str(folder)!r} is not the folder of a run. Give one that holds a summary.json.")


def _load_main(program: str) -> Callable[[list[str]], object]:
    path = _program_file(program)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ConfigurationError(f"{str(path)!r} is not a Python file. Give one whose name ends in .py.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        specification.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{str(path)!r} needs the package {error.name!r}, which is not installed. All that the examples "
            "need is installed by: pip install 'gfb-brevitas[examples,export,plots]'"
        ) from error
    return _main_of(module, path)


def _program_file(program: str) -> Path:
    path = Path(program)
    candidates = [path, path.with_name(f"{path.name}.py")] if path.name else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigurationError(
        f"There is no program {program!r}. Give a Python file, e.g. examples/digits (the examples are in the "
        "repository, not in the installed package)."
    )


def _main_of(module: object, path: Path) -> Callable[[list[str]], object]:
    main: Any = getattr(module, "main", None)
    if not callable(main):
        raise ConfigurationError(f"{str(path)!r} has no function main(arguments). Add one.")
    try:
        inspect.signature(main).bind([])
    except TypeError as error:
        raise ConfigurationError(
            f"The function main of {str(path)!r} must take one argument, the list of command-line arguments; "
            f"it is main{inspect.signature(main)}."
        ) from error
    function: Callable[[list[str]], object] = main
    return function


def _say(text: str) -> None:
    # Not wrapped: what is copied from the terminal or a log is then whole.
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def _fail(error: GfbError) -> NoReturn:
    _say(f"[bold red]{type(error).__name__}[/]: {escape(str(error))}")
    raise typer.Exit(1) from None
