"""The ``gfb finn`` commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gfb_brevitas.cli.models import model_and_inputs
from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_integrations.finn import (
    CheckReport,
    FinnEstimate,
    FinnVerification,
    check,
    estimate,
    install_finn,
    verify,
)
from gfb_integrations.finn.formulas import price
from gfb_integrations.finn.samples import read_samples

app = typer.Typer(
    name="finn",
    help="FINN: what it builds, its own estimates, and proof that every stage computes the same.",
    no_args_is_help=True,
    add_completion=False,
)
_T = TypeVar("_T")

Model = Annotated[Path, typer.Argument(metavar="MODEL.ONNX", help="QONNX file, exported with one sample.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Board = Annotated[str, typer.Option(help="Name of the board.")]
Standalone = Annotated[
    bool, typer.Option("--standalone-thresholds", help="Make activations layers of their own.")
]


@app.command("install")
def install_command(
    prefix: Annotated[Path | None, typer.Option(help="Folder; by default one in the user's cache.")] = None,
) -> None:
    """Make an environment with FINN, of its own; about 700 MB."""
    python = _or_exit(lambda: install_finn(prefix))
    typer.echo(str(python))
    if prefix is not None:
        typer.echo(f"export GFB_FINN_PYTHON={python}")


@app.command("estimate", no_args_is_help=True)
def estimate_command(
    model: Model,
    board: Board = "Pynq-Z1",
    fps: Annotated[
        float | None, typer.Option(help="Samples per second that the folding is to reach.")
    ] = None,
    clock_mhz: Annotated[float, typer.Option(help="Clock frequency in MHz.")] = 100.0,
    standalone_thresholds: Standalone = False,
    folding: Annotated[Path | None, typer.Option(help="FINN's folding file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to keep FINN's last graph in.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run FINN up to its estimates, without Vivado: resources and cycles of every hardware layer."""
    found = _or_exit(
        lambda: estimate(
            model,
            board=board,
            fps=fps,
            clock_mhz=clock_mhz,
            standalone_thresholds=standalone_thresholds,
            folding_file=folding,
            output=output,
        )
    )
    if as_json:
        if found.warning:
            Console(stderr=True).print(
                f"WARNING: {found.warning}", markup=False, highlight=False, soft_wrap=True
            )
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        if found.warning:
            Console().print(f"[bold red]WARNING: {escape(found.warning)}[/]", highlight=False, soft_wrap=True)
        Console().print(_estimate_table(found))


@app.command("verify", no_args_is_help=True)
def verify_command(
    model: Model,
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES.NPZ",
            help="Arrays `inputs` and, to compare with the model itself, `outputs`; first axis samples.",
        ),
    ],
    board: Board = "Pynq-Z1",
    standalone_thresholds: Standalone = False,
    as_json: AsJson = False,
) -> None:
    """Execute the graph after every stage of FINN's flow and compare; ends with 1 where integers differ."""
    found = _or_exit(lambda: _verify(model, samples, board, standalone_thresholds))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        Console().print(_verification_table(found))
    if not found.exact:
        raise typer.Exit(1)


@app.command("check", no_args_is_help=True)
def check_command(
    factory: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="Function without arguments that returns a Brevitas model and example inputs of one batch.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say which layers FINN does not build, why, and what to change; ends with 1 where there are some."""
    report = _or_exit(lambda: _check(factory))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in report.findings], indent=2))
    else:
        Console().print(_check_table(report) if report.findings else report.verdict)
    if not report.builds:
        raise typer.Exit(1)


def _check(factory: str) -> CheckReport:
    return check(*model_and_inputs(factory))


def _check_table(report: CheckReport) -> Table:
    table = Table(title=report.verdict)
    for heading in ("layer", "what FINN does", "problem", "change"):
        table.add_column(heading)
    for finding in report.findings:
        table.add_row(finding.layer, finding.severity, finding.problem, finding.advice)
    return table


def _verify(model: Path, samples: Path, board: str, standalone_thresholds: bool) -> FinnVerification:
    inputs, outputs = read_samples(samples)
    return verify(
        model,
        inputs,
        outputs=outputs,
        board=board,
        standalone_thresholds=standalone_thresholds,
    )


def _estimate_table(found: FinnEstimate) -> Table:
    table = Table(
        title=f"{found.board} ({found.part}), {found.clock_mhz:g} MHz: {found.fps:,.0f} samples per second, "
        f"latency {found.latency_us:,.0f} us",
        show_footer=True,
    )
    totals = [f"{found.total(name):,.0f}" for name in ("lut", "bram_18k", "uram", "dsp")]
    for heading, footer in zip(
        ("layer", "PE", "SIMD", "cycles", "LUT", "BRAM18", "URAM", "DSP"),
        ("total", "", "", f"{found.max_cycles:,}", *totals),
        strict=True,
    ):
        table.add_column(heading, footer=footer, justify="left" if heading == "layer" else "right")
    for node in found.nodes:
        folding = [str(node.attributes.get(name, "")) for name in ("PE", "SIMD")]
        numbers = [f"{value:,.0f}" for value in (node.cycles, node.lut, node.bram_18k, node.uram, node.dsp)]
        table.add_row(node.name, *folding, *numbers)
    table.caption = _compared_with_formulas(found)
    if found.host_nodes:
        table.caption += f"\nOutside the FPGA, and in no number: {', '.join(found.host_nodes)}"
    return table


def _compared_with_formulas(found: FinnEstimate) -> str:
    """What a search would have priced these layers at, given their folding and widths."""
    others = []
    for node in found.nodes:
        try:
            if price(node, found.part).differs_from(node):
                others.append(node.name)
        except ConfigurationError:
            others.append(f"{node.name} (no formula)")
    if not others:
        return f"The formulas of the search give the same numbers for all {len(found.nodes)} layers."
    return f"The formulas of the search give other numbers for: {', '.join(others)}."


def _verification_table(found: FinnVerification) -> Table:
    verdict = "every stage computes the same" if found.exact else "NOT the same"
    table = Table(title=f"{found.samples} samples: {verdict}")
    for heading in ("stage", "largest difference", "in steps", "argmax equal", "first node that differs"):
        table.add_column(heading)
    for stage in found.stages:
        agreement = "" if stage.argmax_agreement is None else f"{stage.argmax_agreement:.2%}"
        steps = "" if stage.max_diff_steps is None else str(stage.max_diff_steps)
        node = "" if stage.node is None else f"{stage.node} ({stage.differing_values} values)"
        table.add_row(stage.stage, f"{stage.max_abs_diff:.3g}", steps, agreement, node)
    return table


def _or_exit(action: Callable[[], _T]) -> _T:
    try:
        return action()
    except GfbError as error:
        Console(stderr=True).print(f"Error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        raise typer.Exit(130) from None
