"""Learned clipping values over the bit width."""

from __future__ import annotations

from matplotlib.figure import Figure

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import by_depth
from gfb_integrations.plots.data.clipping import Clipping
from gfb_integrations.plots.paper._figure import WIDTH_IN, logarithmic, message, styled, whole_numbers

_DASHES = ("-", "--", ":", "-.")
_SYMBOLS = ("o", "s", "D", "^", "P")
_MOST_NAMED = 14


@styled
def clipping_curves(run: RecordedRun) -> Figure:
    """The learned a(b) of every quantizer; see the interactive figure."""
    data = Clipping(run=run)
    if data.missing is not None:
        return message(data.missing)
    figure = Figure(figsize=(WIDTH_IN, 2.7), layout="constrained")
    axes = figure.subplots(1, len(data.kinds), squeeze=False)[0]
    for axis, kind in zip(axes, data.kinds, strict=True):
        curves = [curve for curve in data.curves if curve.kind == kind]
        for place, curve in enumerate(curves):
            colour, symbol = by_depth(curve.depth, len(run.quantizers)), _SYMBOLS[place % len(_SYMBOLS)]
            dash = _DASHES[place % len(_DASHES)]
            axis.plot(curve.bits, curve.values, dash, color=colour, linewidth=1, label=curve.label)
            if curve.chosen is not None:
                axis.plot([curve.chosen], [curve.chosen_value], symbol, color=colour, markersize=5)
        axis.set_title(f"a(b) of {kind}s")
        axis.set_xlabel("bit width b")
        whole_numbers(axis.xaxis)
        if needs_log(values := [value for curve in curves for value in curve.values], ratio=8.0):
            logarithmic(axis, values)
        if len(data.curves) <= _MOST_NAMED:
            axis.legend(ncols=2)
    return figure
