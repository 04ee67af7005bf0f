"""Bits per layer, over the depth of the network."""

from __future__ import annotations

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._bars import name_layers, quantizer_bars
from gfb_integrations.plots._figure import figure, message, plain
from gfb_integrations.plots.colours import GRID, INK
from gfb_integrations.plots.data.bits import BitsPerLayer

TITLE = "Bits per layer"
_MOST_NUMBERS = 40


def bits_per_layer(run: RecordedRun) -> go.Figure:
    """Every quantizer's width in forward order, with the largest that it might take and its size below.

    Args:
        run: The run; of one under way the last allocation is drawn.
    """
    data = BitsPerLayer(run=run)
    if data.missing is not None or data.widths is None:
        return message(TITLE, data.missing or "")
    made = figure(TITLE, ["bit width", "values quantized"], [230, 110], labels=data.labels)
    axis = name_layers(made, data.labels)
    quantizers = run.quantizers
    made.add_bar(
        x=axis,
        y=[q.max_bits for q in quantizers],
        width=0.86,
        marker={"color": GRID, "line_width": 0},
        name="largest allowed",
        hoverinfo="skip",
        row=1,
        col=1,
    )
    about = [
        f"<b>{plain(q.name)}</b><br>{q.kind}, {bits} of {q.min_bits} to {q.max_bits} bits"
        f"<br>{q.elements:,} values, {q.macs:,} MACs"
        + (f"<br>tied with {plain(', '.join(data.tied_with(q)))}" if data.tied_with(q) else "")
        for q, bits in zip(quantizers, data.widths, strict=True)
    ]
    text = len(quantizers) <= _MOST_NUMBERS
    quantizer_bars(made, run, axis, data.widths.tolist(), about, row=1, with_numbers=text)
    quantizer_bars(made, run, axis, [q.elements for q in quantizers], about, row=2, legend=False)
    if data.reference is not None:
        made.add_scatter(
            x=axis,
            y=data.reference.tolist(),
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": "dot", "shape": "hvh"},
            name=data.reference_name,
            hoverinfo="skip",
            row=1,
            col=1,
        )
    made.update_layout(barmode="overlay")
    made.update_yaxes(row=1, col=1, rangemode="tozero", tickformat="d", nticks=9)
    made.update_yaxes(row=2, col=1, type="log", dtick=1, exponentformat="SI")
    return made
