"""The search beside uniform widths."""

from __future__ import annotations

from collections.abc import Iterator

import plotly.graph_objects as go

from gfb_brevitas.report.comparison import Contender
from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import budget_line, figure, message, numbers, plain
from gfb_integrations.plots.colours import ACTIVATION, BAD, GOOD, INK
from gfb_integrations.plots.data.comparison import Comparison

TITLE = "Comparison with uniform widths"


def comparison(run: RecordedRun) -> go.Figure:
    """The metric against the budget that binds, for the search and for fixed widths.

    Args:
        run: The run; its summary must hold the rows.
    """
    data = Comparison(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    made = figure(TITLE, [data.measured], [240])
    for name, symbol, colour, models in _groups(data.models):
        _points(made, data, name, symbol, colour, models)
    axis = data.axis
    if axis.limit is not None:
        budget_line(made, axis.limit)
    costs = [axis.value(model) for model in data.models] + ([] if axis.limit is None else [axis.limit])
    values = [model.accuracy for model in data.models]
    across, up = max(costs) - min(costs) or max(costs) or 1.0, max(values) - min(values) or 0.01
    made.update_xaxes(
        range=[min(costs) - 0.3 * across, max(costs) + 0.3 * across],
        title={"text": plain(f"{axis.name} ({axis.unit})"), "standoff": 6},
        exponentformat="SI",
    )
    made.update_yaxes(
        tickformat=".1%" if data.is_share else ".3~g",
        range=[min(values) - 0.35 * up, max(values) + 0.35 * up],
    )
    return made


def _groups(models: tuple[Contender, ...]) -> Iterator[tuple[str, str, str, list[Contender]]]:
    """Name, symbol, colour and models of what is drawn alike."""
    fixed = [model for model in models if not model.searched]
    yield "fixed widths", "circle", ACTIVATION, [model for model in fixed if model.kept]
    yield "above a budget", "x", BAD, [model for model in models if not model.kept]
    yield "searched", "star", GOOD, [model for model in models if model.searched and model.kept]


def _points(
    made: go.Figure, data: Comparison, name: str, symbol: str, colour: str, models: list[Contender]
) -> None:
    if not models:
        return
    axis, searched = data.axis, any(model.searched for model in models)
    known = [axis.value(model) for model in data.models]
    middle = (min(known) + max(known)) / 2
    made.add_scatter(
        x=numbers(axis.value(model) for model in models),
        y=numbers(model.accuracy for model in models),
        mode="markers+text",
        marker={"symbol": symbol, "size": 16 if searched else 11, "color": colour},
        text=[plain(model.name) for model in models],
        textposition=[
            f"{_side(data, model)} {'right' if axis.value(model) < middle else 'left'}" for model in models
        ],
        textfont={"size": 12, "color": INK},
        hovertemplate=f"%{{text}}<br>%{{y:{'.2%' if data.is_share else '.4~g'}}} with %{{x:.4~s}} "
        f"{plain(axis.unit)}<extra></extra>",
        name=name,
    )


def _side(data: Comparison, model: Contender) -> str:
    """Names stand below the lowest of the points that are near, and above the others."""
    costs = [data.axis.value(other) for other in data.models]
    near = 0.25 * (max(costs) - min(costs))
    beside = [m for m in data.models if abs(data.axis.value(m) - data.axis.value(model)) <= near]
    lowest = min(beside, key=lambda other: other.accuracy, default=model)
    return "bottom" if lowest is model and len(beside) > 1 else "top"
