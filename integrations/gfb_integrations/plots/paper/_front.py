"""Loss against cost of everything that was evaluated."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import GOOD, INK, MUTED, ORDINAL_SCALE
from gfb_integrations.plots.data.front import CostAxis, Front
from gfb_integrations.plots.paper._figure import WIDTH_IN, legend_above, logarithmic, message, styled

_COLOURS = LinearSegmentedColormap.from_list(
    "steps", [(float(at), str(colour)) for at, colour in ORDINAL_SCALE]
)


@styled
def front(run: RecordedRun) -> Figure:
    """The loss of every candidate against each budget's cost; see the interactive figure."""
    data = Front(run=run)
    if data.missing is not None:
        return message(data.missing)
    rows = -(-len(data.axes) // 2)
    figure = Figure(figsize=(WIDTH_IN, 2.7 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, min(2, len(data.axes)), sharey=True, squeeze=False).ravel()
    steps = len(data.step_names)
    norm = BoundaryNorm(np.arange(-0.5, steps + 0.5), max(256, steps))
    for panel, cost in zip(panels, data.axes, strict=False):
        _panel(panel, data, cost, norm)
    for panel in panels[len(data.axes) :]:
        panel.set_visible(False)
    panels[0].set_ylabel("loss")
    if needs_log(data.losses.tolist()):
        logarithmic(panels[0], data.losses.tolist())
    legend_above(figure, panels[:1])
    if steps > 1:
        bar = figure.colorbar(
            ScalarMappable(norm, _COLOURS), ax=list(panels), label="step (round.step)", aspect=40
        )
        ticks = np.unique(np.linspace(0, steps - 1, min(steps, 6)).round().astype(int))
        bar.set_ticks(ticks.tolist(), labels=[data.step_names[tick] for tick in ticks])
        bar.minorticks_off()
    return figure


def _panel(panel: Axes, data: Front, cost: CostAxis, norm: BoundaryNorm) -> None:
    places = data.thinned(cost)
    above, within = places[~data.feasible[places]], places[data.feasible[places]]
    panel.scatter(
        cost.costs[above],
        data.losses[above],
        s=8,
        c=MUTED,
        marker="x",
        linewidths=0.6,
        alpha=0.5,
        label="above a budget",
    )
    panel.scatter(
        cost.costs[within],
        data.losses[within],
        s=9,
        c=data.steps[within],
        norm=norm,
        cmap=_COLOURS,
        alpha=0.8,
        linewidths=0,
        label="within budgets" if data.run.budgets else "candidate",
    )
    line = data.front(cost)
    panel.plot(cost.costs[line], data.losses[line], color=INK, drawstyle="steps-post", label="front")
    chosen = [point for point in data.chosen if cost.name in point.costs and np.isfinite(point.loss)]
    panel.plot(
        [point.costs[cost.name] for point in chosen],
        [point.loss for point in chosen],
        "*",
        color="white",
        markeredgecolor=GOOD,
        markersize=8,
        label="chosen",
    )
    if cost.limit is not None:
        panel.axvline(cost.limit, color=GOOD, linestyle="--", label="budget")
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_xlabel(f"{cost.name} ({cost.unit})")
