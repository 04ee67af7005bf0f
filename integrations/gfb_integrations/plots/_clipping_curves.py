"""Learned clipping values over the bit width."""

from __future__ import annotations

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import figure, log_axis, message, numbers, plain
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import DASHES, SYMBOLS, by_depth
from gfb_integrations.plots.data.clipping import Clipping, ClippingCurve

TITLE = "Clipping values"
_MOST_NAMED = 14


def clipping_curves(run: RecordedRun) -> go.Figure:
    """The learned a(b) of every quantizer, from light at the network's input to dark at its output.

    Args:
        run: The run, which must have ended.
    """
    data = Clipping(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    made = figure(TITLE, [f"a(b) of {kind}s" for kind in data.kinds], [250] * len(data.kinds))
    for row, kind in enumerate(data.kinds, start=1):
        curves = [curve for curve in data.curves if curve.kind == kind]
        for place, curve in enumerate(curves):
            _curve(made, curve, row, place, len(run.quantizers), named=len(data.curves) <= _MOST_NAMED)
        if needs_log(values := [value for curve in curves for value in curve.values], ratio=8.0):
            made.update_yaxes(row=row, col=1, **log_axis(values))
    made.update_xaxes(dtick=1)
    made.update_xaxes(row=len(data.kinds), col=1, title={"text": "bit width b", "standoff": 6})
    if len(data.curves) <= _MOST_NAMED:
        made.update_layout(
            legend={"y": 0, "yref": "container", "yanchor": "bottom"},
            margin={"b": 92, "t": 44},
            meta={"legend_below": len(data.curves)},
        )
        made.layout.height += 22
    return made


def _curve(made: go.Figure, curve: ClippingCurve, row: int, place: int, depth: int, *, named: bool) -> None:
    colour = by_depth(curve.depth, depth)
    symbol = SYMBOLS[place % len(SYMBOLS)]
    sizes = [12 if bits == curve.chosen else 5 for bits in curve.bits]
    made.add_scatter(
        x=list(curve.bits),
        y=numbers(curve.values),
        mode="lines+markers",
        line={"color": colour, "width": 1.8 if named else 1.2, "dash": DASHES[place % len(DASHES)]},
        marker={"symbol": symbol, "size": sizes, "opacity": 1, "line": {"width": 0}},
        name=plain(curve.label),
        showlegend=named,
        hovertemplate="b = %{x}<br>a = %{y:.4~g}<extra>" + plain(curve.label) + "</extra>",
        row=row,
        col=1,
    )
