"""What each layer takes of every budget."""

from __future__ import annotations

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedLayerCost, RecordedRun
from gfb_integrations.plots._bars import name_layers
from gfb_integrations.plots._figure import figure, message, plain
from gfb_integrations.plots.colours import INK, WEIGHT
from gfb_integrations.plots.data.resources import ResourcesPerLayer

TITLE = "Budgets, layer by layer"
_PANEL_PX = {1: 230, 2: 160}
_SMALL_PANEL_PX = 120
_MOST_WIDE = 80


def resources_per_layer(run: RecordedRun) -> go.Figure:
    """What each layer takes of every budget (LUTs, block RAMs, cycles, bits, ...), one panel for each.

    Args:
        run: The run; one that has ended.
    """
    data = ResourcesPerLayer(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    headings = [data.heading(budget) for budget in data.drawn]
    height = _PANEL_PX.get(len(headings), _SMALL_PANEL_PX)
    made = figure(TITLE, headings, [height] * len(headings), labels=data.labels)
    axis = name_layers(made, data.labels)
    for row, budget in enumerate(data.drawn, start=1):
        _panel(made, data, budget, axis, row)
    made.update_yaxes(rangemode="tozero", exponentformat="SI", nticks=5)
    made.update_layout(showlegend=False)
    return made


def _panel(
    made: go.Figure, data: ResourcesPerLayer, budget: RecordedLayerCost, axis: list[str], row: int
) -> None:
    values = data.values(budget)
    most = data.largest(budget)
    few = len(axis) <= _MOST_WIDE
    dashed = budget.joined_by == "largest" and 0 < budget.limit <= 3 * max(values)
    made.add_bar(
        x=axis,
        y=values,
        width=0.62 if few else 0.9,
        marker={
            "color": WEIGHT,
            "line": {"width": 0},
            "pattern": {
                "shape": ["/" if place == most else "" for place in range(len(axis))],
                "fillmode": "overlay",
                "fgcolor": "#ffffff",
                "size": 7,
                "solidity": 0.28,
            },
        },
        # The largest is the cost itself, which the heading has, and there may be dashes where it would stand.
        text=[_number(value) if place == most and not dashed else "" for place, value in enumerate(values)],
        textposition="outside",
        textangle=0,
        constraintext="none",
        textfont={"size": 12, "color": INK},
        cliponaxis=False,
        customdata=[
            f"<b>{plain(layer)}</b><br>{plain(data.about(budget, value))}"
            for layer, value in zip(data.layers, values, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        row=row,
        col=1,
    )
    if dashed:
        made.add_hline(y=budget.limit, line={"color": INK, "width": 1.5, "dash": "dash"}, row=row, col=1)
    top = max(values[most], budget.limit if dashed else 0.0)
    few_whole = top <= 4 and all(value == int(value) for value in values)
    made.update_yaxes(range=[0, 1.22 * top], dtick=1 if few_whole else None, row=row, col=1)


def _number(value: float) -> str:
    return f"{value:,.6g}"
