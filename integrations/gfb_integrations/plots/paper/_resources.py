"""What each layer takes of every budget."""

from __future__ import annotations

from matplotlib.figure import Figure

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.colours import INK, WEIGHT
from gfb_integrations.plots.data.resources import ResourcesPerLayer
from gfb_integrations.plots.paper._bars import name_layers
from gfb_integrations.plots.paper._figure import message, panels, styled

_PANEL_IN = {1: 1.7, 2: 1.2}
_SMALL_PANEL_IN = 0.95


@styled
def resources_per_layer(run: RecordedRun) -> Figure:
    """What each layer takes of every budget, one panel for each; see the interactive figure."""
    data = ResourcesPerLayer(run=run)
    if data.missing is not None:
        return message(data.missing)
    headings = [data.heading(budget) for budget in data.drawn]
    height = _PANEL_IN.get(len(headings), _SMALL_PANEL_IN)
    figure, axes = panels(headings, [height] * len(headings), labels=data.labels)
    for axis, budget in zip(axes, data.drawn, strict=True):
        values, most = data.values(budget), data.largest(budget)
        bars = axis.bar(range(len(values)), values, 0.62, color=WEIGHT, edgecolor=WEIGHT, linewidth=0)
        bars[most].set(hatch="////", edgecolor="white")
        top = values[most]
        if budget.joined_by == "largest" and 0 < budget.limit <= 3 * top:
            axis.axhline(budget.limit, color=INK, linestyle="--")
            top = max(top, budget.limit)
        else:
            number = f"{top:,.6g}"
            axis.annotate(number, (most, top), (0, 1), textcoords="offset points", ha="center", fontsize=7)
        axis.set_ylim(0, 1.2 * top)
    name_layers(axes[-1], data.labels)
    return figure
