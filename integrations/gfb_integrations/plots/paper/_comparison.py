"""The search beside uniform widths."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.colours import ACTIVATION, BAD, GOOD
from gfb_integrations.plots.data.comparison import Comparison
from gfb_integrations.plots.paper._figure import message, panels, styled


@styled
def comparison(run: RecordedRun) -> Figure:
    """The metric against the budget that binds; see the interactive figure."""
    data = Comparison(run=run)
    if data.missing is not None:
        return message(data.missing)
    figure, (axis,) = panels([data.measured], [2.3])
    for model in data.models:
        point = (data.axis.value(model), model.accuracy)
        symbol, colour = ("*", GOOD) if model.searched else ("o", ACTIVATION)
        symbol, colour = (symbol, colour) if model.kept else ("X", BAD)
        axis.plot(*point, symbol, color=colour, markersize=10 if model.searched else 6)
        name = model.name if model.kept else f"{model.name} (above a budget)"
        axis.annotate(name, point, (7, 3), textcoords="offset points")
    if data.axis.limit is not None:
        axis.axvline(data.axis.limit, color=GOOD, linestyle="--")
    axis.margins(0.16, 0.2)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_xlabel(f"{data.axis.name} ({data.axis.unit})")
    if data.is_share:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    return figure
