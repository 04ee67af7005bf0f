"""What all commands print alike: errors in one line, JSON for programs, tables for people."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from gfb_brevitas.errors import GfbError
from gfb_brevitas.search.history import json_ready
from gfb_brevitas.terminal import plain_console, print_lines

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def say(text: str, *, lead: str = "", style: str = "bold red") -> None:
    """Print to the error stream; ``lead`` comes first and in ``style``."""
    print_lines(plain_console(stderr=True), text, lead=lead, style=style)


@contextmanager
def output_kept_for(as_json: bool) -> Iterator[None]:
    """Send what the user's functions print to the error stream, where the output is JSON for programs."""
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        yield


@contextmanager
def errors_in_one_line(*, goes_on: bool = False) -> Iterator[None]:
    """End the command with 1 and the error's message where the package raises one on purpose.

    Args:
        goes_on: Whether the command, when it is repeated, goes on where it was interrupted.
    """
    try:
        yield
    except GfbError as error:
        say(f": {error}", lead=type(error).__name__)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        advice = " Run the same command again to go on where it stopped." if goes_on else ""
        say(f"Interrupted.{advice}")
        raise typer.Exit(130) from None


def put(document: Any, tables: Callable[[], Sequence[RenderableType]], *, as_json: bool) -> None:
    """Print a result.

    Args:
        document: The result as plain data.
        tables: Makes what people see, one below the other; strings are printed as they are.
        as_json: Whether to print the data instead.
    """
    if as_json:
        tell(json.dumps(json_ready(document), indent=2))
        return
    parts = tables()
    with _output():
        console = plain_console()
        for number, part in enumerate(parts):
            if number:
                console.print()
            if isinstance(part, str):
                print_lines(console, part)
            else:
                console.print(part)


def tell(text: str) -> None:
    """Print a text as it is."""
    with _output():
        typer.echo(text)


@contextmanager
def _output() -> Iterator[None]:
    """Print inside the block; a failure ends the command with 1, silently if nobody listens any more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what a terminal's encoding lacks
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # nothing is left to fail when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            say(f": {error.strerror or error}.", lead="The output cannot be written")
        raise typer.Exit(1) from None
