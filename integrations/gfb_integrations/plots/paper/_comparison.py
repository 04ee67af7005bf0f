"""The search beside uniform widths."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.colours import ACTIVATION, GOOD
from gfb_integrations.plots.data.comparison import Comparison
from gfb_integrations.plots.paper._figure import message, panels, styled


@styled
def comparison(run: RecordedRun) -> Figure:
    """Test accuracy against the size of the weights; see the interactive figure."""
    data = Comparison(run=run)
    if data.missing is not None:
        return message(data.missing)
    figure, (axis,) = panels([data.measured], [2.3])
    for model in data.models:
        point = (model.weight_kilobytes, model.accuracy)
        axis.plot(
            *point,
            "*" if model.searched else "o",
            color=GOOD if model.searched else ACTIVATION,
            markersize=10 if model.searched else 6,
        )
        axis.annotate(model.name, point, (7, 3), textcoords="offset points")
    axis.margins(0.16, 0.2)
    axis.set_xlabel("weights in kB")
    if data.is_share:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    return figure
