"""The ``gfb`` command."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gfb_brevitas.errors import CheckpointError, ConfigurationError, GfbError

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
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def run(
    context: typer.Context,
    program: Annotated[
        str,
        typer.Argument(
            help="A Python file with a function main(arguments); `.py` may be left out. --help: its own help."
        ),
    ],
) -> None:
    """Run an example, or a program of your own: everything after its name is passed on to it.

    For example: gfb run examples/digits --seed 1
    """
    if program in ("--help", "-h"):
        typer.echo(context.get_help())
        return
    try:
        _load_main(program)(context.args)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted. Run the same command again to go on where it stopped.")
        raise typer.Exit(130) from None
    except GfbError as error:
        _fail(error)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
) -> None:
    """Print the result of a run: its numbers and the bit width of every quantizer."""
    from rich.table import Table

    try:
        summary = _read_summary(folder)
    except GfbError as error:
        _fail(error)
    numbers = Table("figure", "value", title=str(folder), title_justify="left")
    for name, value in summary.items():
        if isinstance(value, int | float | str | bool):
            numbers.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    widths = Table("quantizer", "bits", title="allocation", title_justify="left")
    for name, bits in summary.get("allocation", {}).items():
        widths.add_row(name, str(bits))
    console = Console()
    console.print(numbers)
    console.print(widths)


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {str(folder)!r}.")
    if not path.is_file():
        raise CheckpointError(
            f"{str(path)!r} does not exist: the run has not ended. Start it again to let it go on."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("allocation", {}), dict):
        raise CheckpointError(f"{str(path)!r} is not the summary of a run.")
    return document


def _load_main(program: str) -> Any:
    path = Path(program)
    if not path.is_file():
        path = path.with_name(f"{path.name}.py")
    if not path.is_file():
        raise ConfigurationError(
            f"There is no program {program!r}. Give a Python file, e.g. examples/digits (the examples are "
            "in the repository, not in the installed package)."
        )
    name = path.stem
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ConfigurationError(f"{str(path)!r} is not a Python file.")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    specification.loader.exec_module(module)
    main = getattr(module, "main", None)
    if not callable(main):
        raise ConfigurationError(f"{str(path)!r} has no function main(arguments).")
    return main


def _fail(error: GfbError) -> None:
    Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: ", end="")
    Console(stderr=True).print(str(error), markup=False, highlight=False)
    raise typer.Exit(1) from None
