"""Loss against cost of everything that was evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import budget_line, figure, log_axis, message, numbers, upright
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import GOOD, INK, MUTED, ORDINAL_SCALE
from gfb_integrations.plots.data.front import CostAxis, Front
from gfb_integrations.plots.data.widths import shortened

TITLE = "Loss and cost of everything evaluated"


def front(run: RecordedRun) -> go.Figure:
    """The loss of every candidate against each budget's cost, a panel per budget.

    Args:
        run: The run. Without budgets the cost is the size of the weights.
    """
    data = Front(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    panels = [f"loss by {shortened(axis.name, 24)} ({axis.unit})" for axis in data.axes]
    made = figure(TITLE, panels, [290] * len(panels), shared_x=False)
    logarithmic = needs_log(data.losses.tolist())
    for row, axis in enumerate(data.axes, start=1):
        _candidates(made, data, axis, row)
        _front_line(made, data, axis, row)
        _chosen(made, data, axis, row)
        _limit(made, axis, row)
        made.update_xaxes(row=row, col=1, exponentformat="SI")
    if logarithmic:
        made.update_yaxes(**log_axis(data.losses.tolist()))
    if len(data.step_names) > 1:
        made.update_layout(margin={"b": 104})
        made.layout.height += 56
    return made


def _step_bar(names: tuple[str, ...]) -> dict[str, Any]:
    shown = sorted({0, len(names) // 2, len(names) - 1}) if len(names) > 6 else range(len(names))
    return {
        "title": {"text": "step (round.step)<br> ", "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "tickvals": list(shown),
        "ticktext": [names[place] for place in shown],
        "thickness": 10,
        "len": 0.6,
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "outlinewidth": 0,
    }


_GREY = {"opacity": 0.45, "color": MUTED, "line": {"width": 1.2, "color": MUTED}}


def _by_step(data: Front, places: NDArray[np.int64], row: int) -> dict[str, Any]:
    return {
        "opacity": 0.75,
        "color": data.steps[places].tolist(),
        "colorscale": ORDINAL_SCALE,
        "cmin": 0,
        "cmax": max(1, len(data.step_names) - 1),
        "showscale": row == 1 and len(data.step_names) > 1,
        "colorbar": _step_bar(data.step_names),
        "line": {"width": 0},
    }


def _candidates(made: go.Figure, data: Front, axis: CostAxis, row: int) -> None:
    places = data.thinned(axis)
    for feasible, name, symbol in ((False, "above a budget", "x-thin"), (True, "within budgets", "circle")):
        drawn = places[data.feasible[places] == feasible]
        if not len(drawn):
            continue
        made.add_scatter(
            x=numbers(axis.costs[drawn]),
            y=numbers(data.losses[drawn]),
            mode="markers",
            marker={"symbol": symbol, "size": 6, **(_by_step(data, drawn, row) if feasible else _GREY)},
            customdata=[data.step_names[step] for step in data.steps[drawn]],
            hovertemplate="step %{customdata}<br>cost %{x:,.6~g}<br>loss %{y:.5~g}<extra>"
            + name
            + "</extra>",
            name=name if data.run.budgets else "candidate",
            legendgroup=name,
            showlegend=row == 1,
            row=row,
            col=1,
        )


def _front_line(made: go.Figure, data: Front, axis: CostAxis, row: int) -> None:
    places = data.front(axis)
    made.add_scatter(
        x=numbers(axis.costs[places]),
        y=numbers(data.losses[places]),
        mode="lines",
        line={"color": INK, "width": 2, "shape": "hv"},
        hoverinfo="skip",
        name="front",
        legendgroup="front",
        showlegend=row == 1,
        row=row,
        col=1,
    )


def _chosen(made: go.Figure, data: Front, axis: CostAxis, row: int) -> None:
    points = [point for point in data.chosen if axis.name in point.costs and np.isfinite(point.loss)]
    if not points:
        return
    made.add_scatter(
        x=[point.costs[axis.name] for point in points],
        y=[point.loss for point in points],
        mode="markers",
        marker={"symbol": "star", "size": 14, "color": "#ffffff", "line": {"color": GOOD, "width": 2}},
        customdata=[point.step for point in points],
        hovertemplate="chosen by step %{customdata}<br>cost %{x:,.6~g}<br>loss %{y:.5~g}<extra></extra>",
        name="chosen",
        legendgroup="chosen",
        showlegend=row == 1,
        row=row,
        col=1,
    )


def _limit(made: go.Figure, axis: CostAxis, row: int) -> None:
    finite = axis.costs[np.isfinite(axis.costs)]
    low, high = float(finite.min(initial=np.inf)), float(finite.max(initial=-np.inf))
    if axis.limit is not None:
        budget_line(made, axis.limit, row)
    for bits, cost in axis.at_uniform_bits.items():
        if low <= cost <= high:
            upright(made, cost, row, f"{bits} bit", colour=MUTED, dash="dot", width=1, y=0.93)
