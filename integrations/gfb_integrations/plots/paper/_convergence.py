"""Convergence of every gradient-free step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import ACTIVATION, BAND, GOOD, INK, WEIGHT
from gfb_integrations.plots.data.convergence import Convergence, SearchStep
from gfb_integrations.plots.paper._figure import legend_above, logarithmic, message, panels, styled


@styled
def convergence(run: RecordedRun) -> Figure:
    """Best and median objective, step size and feasible share by generation; see the interactive figure."""
    data = Convergence(run=run)
    if data.missing is not None:
        return message(data.missing)
    figure, axes = panels(["objective", "step size (log2 bits)", "share within budgets"], [2.0, 1.0, 1.0])
    for axis in axes:
        for step in data.steps[::2]:
            axis.axvspan(step.begin, step.end, color=BAND, linewidth=0)
    upper, middle, lower = axes
    _line(upper, data.steps, "best", lambda s: [g.best_value for g in s.generations], color=WEIGHT)
    median: Callable[[SearchStep], Sequence[float]] = lambda s: [g.median_value for g in s.generations]  # noqa: E731
    _line(upper, data.steps, "median", median, color=ACTIVATION, linestyle="--")
    _line(
        upper,
        data.steps,
        "best feasible loss",
        lambda s: [g.best_feasible_loss for g in s.generations],
        color=GOOD,
        linestyle=":",
        marker="D",
    )
    _line(middle, data.steps, "step size", lambda s: [g.step_size for g in s.generations], color=INK)
    _line(lower, data.steps, "share", lambda s: s.feasible_shares, color=GOOD, marker="D")
    generations = [generation for step in data.steps for generation in step.generations]
    if needs_log(objectives := [g.best_value for g in generations]):
        logarithmic(upper, objectives)
    sizes = [g.step_size for g in generations if math.isfinite(g.step_size)]
    middle.set_ylim(0, 1.15 * max(sizes, default=1.0))
    lower.set_ylim(-0.04, 1.04)
    lower.set_xlim(0, data.steps[-1].end * 1.01)
    lower.set_xlabel("evaluations")
    legend_above(figure, [upper])
    return figure


def _line(
    axis: Axes,
    steps: Sequence[SearchStep],
    name: str,
    values: Callable[[SearchStep], Sequence[float]],
    *,
    marker: str = "o",
    **looks: Any,
) -> None:
    for place, step in enumerate(steps):
        label = name if place == 0 else None
        axis.plot(step.evaluations, values(step), marker=marker, markersize=2.2, label=label, **looks)
