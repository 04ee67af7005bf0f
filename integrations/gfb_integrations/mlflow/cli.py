"""The ``gfb mlflow`` commands."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from gfb_integrations._optional import require
from gfb_integrations.mlflow.process import deliver
from gfb_integrations.mlflow.spool import (
    EVENTS,
    FOLDER,
    Delivered,
    absolute,
    is_delivered,
    read_lines,
    without_password,
)

app = typer.Typer(
    name="mlflow",
    help="MLflow: deliver what a run recorded while the server was away.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    """MLflow: deliver what a run recorded while the server was away."""


@app.command("deliver", no_args_is_help=True)
def deliver_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or the folder that a search named.")
    ],
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="Server or store; by default that of the run. Needed if it has a password."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to try for.")] = 60.0,
) -> None:
    """Deliver what MLflow has not got yet, once; ends with 1 where some of it is left."""
    require("mlflow", extra="mlflow", purpose="Tracking with MLflow")
    folder = next((f for f in (run / FOLDER, run) if (f / EVENTS).is_file()), None)
    if folder is None:
        typer.echo(f"Error: {str(run)!r} holds nothing that was tracked with MLflow.", err=True)
        raise typer.Exit(1)
    uri, cwd = _last_session(folder)
    uri = absolute(tracking_uri) if tracking_uri else uri
    if uri is None:
        typer.echo("Error: it is not known where to. Give --tracking-uri.", err=True)
        raise typer.Exit(1)
    if tracking_uri is None and is_delivered(folder):
        typer.echo("Everything was delivered already.")
        return
    if not deliver(folder.resolve(), uri, timeout_s, _say, cwd):
        typer.echo("Some of it is left. Repeat the command once the server is there.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Delivered to {Delivered.load(folder).uri}")


def _last_session(folder: Path) -> tuple[str | None, Path | None]:
    """Where the search wrote to, and the folder that it ran in."""
    events = [line.event for line in read_lines(folder / EVENTS) if line.event]
    sessions = [event for event in events if event["kind"] == "session"] or [{}]
    cwd = Path(str(sessions[-1].get("cwd", "")))
    uri, given = sessions[-1].get("uri"), os.environ.get("MLFLOW_TRACKING_URI")
    if given and (uri is None or without_password(given) == uri):
        uri = given  # with its password
    return uri, cwd if cwd.is_dir() else None


def _say(level: int, text: str) -> None:
    if level >= logging.WARNING:
        typer.echo(text, err=True)
