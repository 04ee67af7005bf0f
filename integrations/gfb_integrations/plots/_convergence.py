"""Convergence of every gradient-free step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import figure, log_axis, message, numbers, plain, shade
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import ACTIVATION, GOOD, INK, MUTED, WEIGHT
from gfb_integrations.plots.data.convergence import Convergence, SearchStep

TITLE = "Convergence of the search"
_MOST_LABELS = 12


def convergence(run: RecordedRun) -> go.Figure:
    """Best and median objective, step size and share of feasible candidates, generation by generation.

    Args:
        run: The run.
    """
    data = Convergence(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    made = figure(TITLE, ["objective", "step size (log2 bits)", "share within budgets"], [250, 110, 110])
    shade(made, [(step.begin, step.end) for step in data.steps[::2]])
    best = _line(made, data.steps, "best", lambda s: [g.best_value for g in s.generations], colour=WEIGHT)
    median = _line(
        made,
        data.steps,
        "median",
        lambda s: [g.median_value for g in s.generations],
        colour=ACTIVATION,
        dash="dash",
    )
    feasible = _line(
        made,
        data.steps,
        "best feasible loss",
        lambda s: [g.best_feasible_loss for g in s.generations],
        colour=GOOD,
        dash="dot",
        symbol="diamond",
    )
    _line(made, data.steps, "step size", lambda s: [g.step_size for g in s.generations], colour=INK, row=2)
    _line(made, data.steps, "share", lambda s: s.feasible_shares, colour=GOOD, row=3, symbol="diamond")
    if needs_log(objectives := [*best, *median, *feasible]):
        made.update_yaxes(row=1, col=1, **log_axis(objectives))
    made.update_yaxes(row=2, col=1, rangemode="tozero", nticks=4)
    made.update_yaxes(row=3, col=1, range=[-0.04, 1.04], tickformat=".0%", tickvals=[0, 0.5, 1])
    made.update_xaxes(range=[0, data.steps[-1].end * 1.01], exponentformat="none", separatethousands=True)
    made.update_xaxes(row=3, col=1, title={"text": "evaluations", "standoff": 6})
    _name_steps(made, data.steps)
    return made


def _line(
    made: go.Figure,
    steps: Sequence[SearchStep],
    name: str,
    values: Callable[[SearchStep], Sequence[float]],
    *,
    colour: str,
    dash: str = "solid",
    symbol: str = "circle",
    row: int = 1,
) -> list[float | None]:
    x: list[float | None] = []
    y: list[float | None] = []
    for step in steps:  # a gap after every step: the weights are others
        x += [*step.evaluations, None]
        y += [*numbers(values(step)), None]
    made.add_scatter(
        x=x,
        y=y,
        mode="lines+markers" if len(x) <= 150 else "lines",
        line={"color": colour, "dash": dash, "width": 2},
        marker={"size": 5, "symbol": symbol},
        name=name,
        showlegend=row == 1,
        hovertemplate="after %{x:,} evaluations<br>" + name + " %{y:.4~g}<extra></extra>",
        row=row,
        col=1,
    )
    return y


def _name_steps(made: go.Figure, steps: Sequence[SearchStep]) -> None:
    every = -(-len(steps) // _MOST_LABELS)
    for step in steps[::every]:
        made.add_annotation(
            text=plain(step.name),
            x=(step.begin + step.end) / 2,
            xref="x",
            y=1,
            yref="y domain",
            yanchor="top",
            showarrow=False,
            font={"size": 11, "color": MUTED},
        )
