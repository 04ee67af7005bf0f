"""``gfb inspect``, ``gfb show``, ``gfb compare``, ``gfb report``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

import gfb_brevitas as gfb
from gfb_brevitas import report as tables
from gfb_brevitas.cli.output import AsJson, errors_in_one_line, output_kept_for, put, tell
from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.floating_point import float_layers_headline, stays_in_floats
from gfb_brevitas.search import RecordedSeeds
from gfb_brevitas.search.seeds import seed_folders

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


def inspect(
    factory: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="Function without arguments that returns a Brevitas model and example inputs of one batch.",
        ),
    ],
    bits: Annotated[tuple[int, int], typer.Option(metavar="MIN MAX", help="Range of widths.")] = (1, 8),
    board: Annotated[str | None, typer.Option(help="Show the resources of this FPGA board, too.")] = None,
    fps: Annotated[float | None, typer.Option(help="Samples per second that the board is to reach.")] = None,
    clock_mhz: Annotated[float, typer.Option(help="The board's clock frequency.")] = 100.0,
    as_json: AsJson = False,
) -> None:
    """Show what a search would find in a model: its quantizers, ties, and costs at every uniform width."""
    from gfb_brevitas.cli.models import model_and_inputs

    with errors_in_one_line():
        with output_kept_for(as_json):
            searchable = gfb.make_searchable(*model_and_inputs(factory), bits=bits)
        budgets = () if board is None else gfb.Budget.board(board, fps=fps, clock_mhz=clock_mhz)
        costs = tables.uniform_costs(searchable.space, budgets)
        profile = searchable.profile
        put(
            {"quantizers": [vars(info) for info in profile], "refused": [vars(r) for r in profile.refused]}
            | {"float_layers": [vars(layer) for layer in profile.float_layers]}
            | {"unknown_operators": [vars(found) for found in profile.unknown_operators]}
            | {"costs": [row.to_dict() for row in costs]},
            lambda: [tables.profile_table(profile), tables.uniform_costs_table(costs), *_floats(profile)],
            as_json=as_json,
        )


def _floats(profile: gfb.ModelProfile) -> list[str]:
    headline = float_layers_headline(profile.float_layers)
    if not headline:
        return []
    return [f"WARNING: {headline}" if stays_in_floats(profile.float_layers) else headline]


def show(folder: Run, as_json: AsJson = False) -> None:
    """Print a run: its numbers, its budgets and the bit width of every quantizer."""
    with errors_in_one_line():
        run = _loaded(folder)
        rows = tables.run_rows([run])
        if isinstance(run, RecordedSeeds):
            put(rows[0], lambda: tables.runs_tables([run]), as_json=as_json)
            return
        if run.summary is None:
            put(rows[0], lambda: [_state(run), *tables.runs_tables([run])], as_json=as_json)
            return
        try:
            summary = tables.summary_tables(run.summary)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(
                f"{str(folder / 'summary.json')!r} is not the summary of a run, or damaged "
                f"({type(error).__name__}: {error}). Run the run's command again to have it written anew."
            ) from error
        put(dict(run.summary), lambda: [str(folder), *summary], as_json=as_json)


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    as_json: AsJson = False,
) -> None:
    """Print runs side by side: metric, use of every budget, bit widths; several seeds in one row."""
    with errors_in_one_line():
        runs = [_loaded(folder) for folder in folders]
        put(tables.run_rows(runs), lambda: tables.runs_tables(runs), as_json=as_json)


def report(
    folder: Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; by default report.html in the folder.")
    ] = None,
) -> None:
    """Write a run's report: one HTML file that needs no network."""
    with errors_in_one_line():
        _loaded(folder)
        write_report: Any = importlib.import_module("gfb_integrations.report").write_report
        tell(str(write_report(folder, output)))


def _loaded(folder: Path) -> gfb.RecordedRun | RecordedSeeds:
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {str(folder)!r}. Give the folder of a run.")
    return RecordedSeeds.load(folder) if seed_folders(folder) else gfb.RecordedRun.load(folder)


def _state(run: gfb.RecordedRun) -> str:
    way_on = "" if run.status.state == "running" else " Repeating its command lets it go on."
    rounds = f"{len(run.history.rounds)} of {run.configuration['search']['rounds']} rounds"
    return (
        f"The run in {str(run.path)!r} {run.status.in_words().rstrip('.')}.\n"
        f"Done so far: {rounds}, {len(run.history.epochs)} epochs.{way_on}"
    )
