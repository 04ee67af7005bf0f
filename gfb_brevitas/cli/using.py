"""``gfb apply`` and ``gfb export``: what is typed; PyTorch is loaded once something is to be done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gfb_brevitas.cli.output import AsJson

Factory = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODULE:FUNCTION",
        help="Function without arguments that returns a Brevitas model and example inputs of one batch.",
    ),
]


def apply(
    allocation: Annotated[
        Path, typer.Argument(metavar="ALLOCATION", help="An allocation.json, or the folder of a run.")
    ],
    model: Factory,
    weights: Annotated[
        Path | None, typer.Option(help="State dict of the model at this allocation, to load into it.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the state dict of the model here.")] = None,
    export_to: Annotated[Path | None, typer.Option("--export", help="Write the model as QONNX here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give a model the bit widths of an allocation; show, save or export it."""
    from gfb_brevitas.cli import models

    models.apply(allocation, model, weights, save, export_to, as_json)


def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; by default model.qonnx.onnx in the folder."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Function that returns the run's Brevitas model and example inputs; not for runs of a "
            "configuration file.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Write the state dict of the plain Brevitas model here, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the best model of a run as QONNX for FINN, and prove that the file computes the same."""
    from gfb_brevitas.cli import models

    models.export(folder, output, model, weights, as_json)
