"""Which layers are sensitive to their width."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.space import Vector
from gfb_integrations.plots.colours import HEAT_SCALE, INK
from gfb_integrations.plots.data.sensitivity import Sensitivity
from gfb_integrations.plots.paper._bars import name_layers, quantizer_bars
from gfb_integrations.plots.paper._figure import (
    PLAIN_NUMBERS,
    legend_above,
    message,
    panels,
    styled,
    whole_numbers,
)

_COLOURS = LinearSegmentedColormap.from_list("heat", [(float(at), str(colour)) for at, colour in HEAT_SCALE])


@styled
def sensitivity(run: RecordedRun) -> Figure:
    """The expected increase of the loss by quantizer and width; see the interactive figure."""
    data = Sensitivity(run=run)
    if data.missing is not None:
        return message(data.missing)
    if data.increases is not None:
        return _estimate(data, data.increases)
    figure, (axis,) = panels(["effect of a quantizer's width on the loss"], [2.0], labels=data.labels)
    quantizer_bars(axis, run, np.nan_to_num(data.scores).tolist())
    axis.axhline(0, color=INK, linewidth=0.8)
    name_layers(axis, data.labels)
    legend_above(figure, [axis])
    return figure


def _estimate(data: Sensitivity, increases: Vector) -> Figure:
    figure, (axis,) = panels(["bit width"], [2.2], labels=data.labels)
    positive = increases[np.isfinite(increases) & (increases > 0)]
    high = float(positive.max(initial=1e-12))
    low = max(float(positive.min(initial=high)), high * 1e-6)
    shown = np.where(np.isfinite(increases), np.clip(increases, low, None), np.nan)[:, 1:].T
    places, widths = np.arange(len(increases) + 1) - 0.5, np.arange(len(shown) + 1) + 0.5
    norm = LogNorm(low, max(high, low * 10))
    mesh = axis.pcolormesh(places, widths, shown, norm=norm, cmap=_COLOURS, rasterized=len(increases) > 60)
    figure.colorbar(mesh, ax=axis, label="expected increase of the loss", aspect=25, format=PLAIN_NUMBERS)
    if data.widths is not None:
        size = min(6.0, max(2.0, 400 / len(increases)))
        axis.plot(data.widths, "s", color="none", markeredgecolor=INK, markersize=size, label="width chosen")
        legend_above(figure, [axis])
    axis.grid(False)
    whole_numbers(axis.yaxis)
    name_layers(axis, data.labels)
    return figure
