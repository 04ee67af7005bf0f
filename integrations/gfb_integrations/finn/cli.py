"""The ``gfb finn`` commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from gfb_brevitas.cli.output import say
from gfb_brevitas.configuration.references import call
from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_brevitas.report.heartbeat import saying_that
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.terminal import PlainTable, plain_console, print_lines
from gfb_integrations.finn import (
    CheckReport,
    FinnEstimate,
    FinnVerification,
    estimate,
    estimate_run,
    install_finn,
    verify,
    verify_run,
)
from gfb_integrations.finn.estimate import UNKNOWN_LOGIC, FinnNode, lut_in_words
from gfb_integrations.finn.formulas import Price, price
from gfb_integrations.finn.runs import DEFAULT, ESTIMATE_FILE, FOLDING_FILE, VERIFICATION_FILE, ExportedRun
from gfb_integrations.finn.samples import read_samples

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer(
    name="finn",
    help="FINN: what it builds, its own estimates, and proof that every stage computes the same.",
    no_args_is_help=True,
    add_completion=False,
)
SAMPLES = 16
"""Samples of a run's own data that every stage is executed on."""
_T = TypeVar("_T")

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL.ONNX|RUN",
        help="QONNX file, exported with one sample, or the folder of a run with one, which keeps the result.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Board = Annotated[
    str | None, typer.Option(help=f"Name of the board; by default the run's, or {DEFAULT.board}.")
]
_THRESHOLDS = "Make activations layers of their own"
Standalone = Annotated[bool, typer.Option("--standalone-thresholds", help=f"{_THRESHOLDS}.")]
AsInRun = Annotated[
    bool | None,
    typer.Option(
        "--standalone-thresholds/--fused-thresholds", help=f"{_THRESHOLDS}; by default as in the run, or not."
    ),
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
    board: Board = None,
    fps: Annotated[
        float | None, typer.Option(help="Samples per second that FINN's own folding is to reach.")
    ] = None,
    clock_mhz: Annotated[
        float | None,
        typer.Option(help=f"Clock frequency in MHz; by default the run's, or {DEFAULT.clock_mhz:g}."),
    ] = None,
    standalone_thresholds: AsInRun = None,
    folding: Annotated[
        Path | None,
        typer.Option(help="FINN's folding file; by default, for a run, the folding that its search used."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to keep FINN's last graph and its own reports in.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run FINN up to its estimates, without Vivado: resources and cycles of every hardware layer.

    Of a run, the board, the clock and the folding are those of its search; the report shows what was found.
    """
    found = _or_exit(
        lambda: (estimate_run if model.is_dir() else _estimate_file)(
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
            say(f"WARNING: {found.warning}")
        ours = [_price(node, found.part) for node in found.nodes]
        formulas = [None if p is None else asdict(p) for p in ours]
        typer.echo(json.dumps({**found.to_dict(), "formulas": formulas}, indent=2))
    else:
        console = plain_console()
        if found.warning:
            print_lines(console, "", lead=f"WARNING: {found.warning}", style="bold red")
        console.print(_estimate_table(found))
        if model.is_dir():
            print_lines(console, _in_words(found, model))


@app.command("verify", no_args_is_help=True)
def verify_command(
    model: Model,
    samples: Annotated[
        Path | None,
        typer.Argument(
            metavar="SAMPLES.NPZ",
            help="Arrays `inputs` and, to compare with the model itself, `outputs`; first axis samples. A "
            "run of a configuration file has its own, and its model.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODULE:FUNCTION",
            help="Function without arguments that returns the model that was exported (alone or with "
            "example inputs), to compare with.",
        ),
    ] = None,
    board: Board = None,
    standalone_thresholds: AsInRun = None,
    as_json: AsJson = False,
) -> None:
    """Execute the graph after every stage of FINN's flow; ends with 1 where integers differ.

    Compared with the outputs in SAMPLES.NPZ or those of --model; without both, with the file.
    """
    found = _or_exit(lambda: _verify(model, samples, against, board, standalone_thresholds))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        console = plain_console()
        console.print(_verification_table(found))
        if model.is_dir():
            print_lines(console, _where(model / VERIFICATION_FILE))
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
    standalone_thresholds: Standalone = False,
    as_json: AsJson = False,
) -> None:
    """Say which layers FINN does not build, why, and what to change; ends with 1 where there are some."""
    report = _or_exit(lambda: _check(factory, standalone_thresholds))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in report.findings], indent=2))
    else:
        plain_console().print(_check_table(report) if report.findings else report.verdict)
    if not report.builds:
        raise typer.Exit(1)


def _check(factory: str, standalone_thresholds: bool) -> CheckReport:
    from gfb_brevitas.cli.models import model_and_inputs
    from gfb_integrations.finn import check

    return check(*model_and_inputs(factory), standalone_thresholds=standalone_thresholds)


def _check_table(report: CheckReport) -> Table:
    table = PlainTable(title=report.verdict)
    for heading in ("layer", "what FINN does", "problem", "change"):
        table.add_column(heading)
    for finding in report.findings:
        table.add_row(finding.layer, finding.severity, finding.problem, finding.advice)
    return table


def _estimate_file(
    model: Path,
    *,
    board: str | None,
    clock_mhz: float | None,
    standalone_thresholds: bool | None,
    **settings: Any,
) -> FinnEstimate:
    return estimate(
        model,
        board=DEFAULT.board if board is None else board,
        clock_mhz=DEFAULT.clock_mhz if clock_mhz is None else clock_mhz,
        standalone_thresholds=bool(standalone_thresholds),
        **settings,
    )


def _verify(
    path: Path,
    samples: Path | None,
    factory: str | None,
    board: str | None,
    standalone_thresholds: bool | None,
) -> FinnVerification:
    inputs, outputs, model = _own(path) if samples is None else (*read_samples(samples), None)
    given: dict[str, Any] = {
        "model": model if factory is None else _model_of(factory),
        "outputs": outputs,
        "board": board,
        "standalone_thresholds": standalone_thresholds,
    }
    if path.is_dir():
        return verify_run(path, inputs, **given)
    given["board"] = DEFAULT.board if board is None else board
    return verify(path, inputs, **given | {"standalone_thresholds": bool(standalone_thresholds)})


def _own(folder: Path) -> tuple[Any, None, nn.Module]:
    """Samples of the data of a run of a configuration file, no outputs, and its model."""
    needed = "Give samples: gfb finn verify MODEL.ONNX|RUN SAMPLES.NPZ."
    if not (folder / "run.yaml").is_file():
        raise ConfigurationError(
            f"{str(folder)!r} is no run of a configuration file, which would have data of its own. {needed}"
        )
    from gfb_brevitas.cli.models import best_with_samples

    ExportedRun.of(folder)  # before the data is loaded
    model, samples = best_with_samples(folder)
    if samples is None:
        raise ConfigurationError(f"Batches of the run are not pairs of inputs and something else. {needed}")
    return samples[:SAMPLES], None, model


def _model_of(factory: str) -> nn.Module:
    from torch import nn

    made = call(factory)
    model = made[0] if isinstance(made, tuple) else made
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"{factory!r} must return a model; it returned {made!r:.200}.")
    return model


def _estimate_table(found: FinnEstimate) -> Table:
    table = PlainTable(
        title=f"{found.board} ({found.part}), {found.clock_mhz:g} MHz: {found.fps:,.0f} samples per second, "
        f"latency {found.latency_us:,.0f} us",
        show_footer=True,
    )
    prices = [_price(node, found.part) for node in found.nodes]
    totals = [_beside(found.total(name), _total(prices, name)) for name in _RESOURCES]
    cycles = _beside(found.max_cycles, max((p.cycles for p in prices if p is not None), default=0))
    for heading, footer in zip(
        ("layer", "PE", "SIMD", "cycles", "LUT", "BRAM18", "URAM", "DSP"),
        ("total", "", "", cycles, *totals),
        strict=True,
    ):
        table.add_column(heading, footer=footer, justify="left" if heading == "layer" else "right")
    for node, ours in zip(found.nodes, prices, strict=True):
        folding = [str(node.attributes.get(name, "")) for name in ("PE", "SIMD")]
        numbers = [
            _beside(getattr(node, name), None if ours is None else getattr(ours, name))
            for name in ("cycles", *_RESOURCES)
        ]
        if node.logic != "counted":
            numbers[1] = lut_in_words(node.kind, node.lut)
        table.add_row(node.name, *folding, *numbers)
    caption = "FINN's numbers. Where the formulas of the search have others for these layers, in brackets."
    if any(node.logic == "unknown" for node in found.nodes):
        caption += f"\n{UNKNOWN_LOGIC}"
    if found.host_nodes:
        caption += f"\nOutside the FPGA, and in no number: {', '.join(found.host_nodes)}"
    table.caption = caption
    return table


_RESOURCES = ("lut", "bram_18k", "uram", "dsp")
_FOLDED_BY = {
    "nothing": "Folding: none; every layer has one unit.",
    "finn": "Folding: FINN's own for the frame rate. The search counts with another, which may take less.",
    "file": "Folding: that of the file.",
    "search": f"Folding: that which the search counted with, in {FOLDING_FILE}.",
}


def _in_words(found: FinnEstimate, folder: Path) -> str:
    """How a run's model was folded, and FINN's numbers beside the search's and its budgets."""
    lines = [_FOLDED_BY[found.folded_by]]
    costs = RecordedRun.load(folder).layer_costs
    for budget in () if costs is None else costs.budgets:
        theirs = found.cost(budget.name)
        if theirs is not None:
            over = ": ABOVE THE BUDGET" if theirs > budget.limit else ""
            lines.append(
                f"{budget.name}: FINN {theirs:,.0f}, the search {budget.value:,.0f}, at most "
                f"{budget.limit:,.0f} {budget.unit}{over}"
            )
    return "\n".join([*lines, _where(folder / ESTIMATE_FILE)])


def _where(file: Path) -> str:
    return f"{file}; gfb report {file.parent} shows it"


def _price(node: FinnNode, part: str) -> Price | None:
    """What a search would price a layer at, given its folding and widths; ``None`` without a formula."""
    try:
        return price(node, part)
    except ConfigurationError:
        return None


def _total(prices: Sequence[Price | None], name: str) -> float:
    return float(sum(getattr(ours, name) for ours in prices if ours is not None))


def _beside(theirs: float, ours: float | None) -> str:
    if ours is None:
        return f"{theirs:,.0f} (no formula)"
    return f"{theirs:,.0f}" if theirs == ours else f"{theirs:,.0f} ({ours:,.0f})"


def _verification_table(found: FinnVerification) -> Table:
    expected = found.compared_with
    verdict = f"every stage computes the same as {expected}" if found.exact else f"NOT the same as {expected}"
    table = PlainTable(title=f"{found.samples} samples: {verdict}")
    headings = ("stage", "largest difference", "in steps", "argmax equal", "first node that differs", "flips")
    for heading in headings:
        table.add_column(heading)
    for stage in found.stages:
        agreement = "" if stage.argmax_agreement is None else f"{stage.argmax_agreement:.2%}"
        steps = "" if stage.max_diff_steps is None else str(stage.max_diff_steps)
        node = "" if stage.node is None else f"{stage.node} ({stage.differing_values} values)"
        flips = str(stage.rounding_flips or "")
        table.add_row(stage.stage, f"{stage.max_abs_diff:.3g}", steps, agreement, node, flips)
    if any(stage.rounding_flips for stage in found.stages):
        table.caption = (
            "flips: values that rounding errors of float32 took to the other side; see docs/finn.md"
        )
    return table


def _or_exit(action: Callable[[], _T]) -> _T:
    try:
        with saying_that("FINN"):
            return action()
    except GfbError as error:
        say(f"Error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("Interrupted.")
        raise typer.Exit(130) from None
