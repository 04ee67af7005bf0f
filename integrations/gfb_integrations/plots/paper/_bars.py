"""Bars in forward order: bits per layer, costs per layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.colours import GOOD, GRID, INK, OF_KIND
from gfb_integrations.plots.data.bits import BitsPerLayer
from gfb_integrations.plots.data.layer_costs import LayerCosts
from gfb_integrations.plots.data.widths import LONGEST_LABEL, shortened
from gfb_integrations.plots.paper._figure import (
    legend_above,
    logarithmic,
    message,
    panels,
    styled,
    whole_numbers,
)

_HATCH = {"weight": "", "activation": "////"}
_MOST_LABELS = 60
_MOST_NUMBERS = 40


@styled
def bits_per_layer(run: RecordedRun) -> Figure:
    """Every quantizer's width in forward order, with its size below; see the interactive figure."""
    data = BitsPerLayer(run=run)
    if data.missing is not None or data.widths is None:
        return message(data.missing or "")
    figure, (upper, lower) = panels(["bit width", "values quantized"], [1.7, 1.0], labels=data.labels)
    places = np.arange(len(run.quantizers))
    upper.bar(places, [q.max_bits for q in run.quantizers], 0.86, color=GRID, label="largest allowed")
    quantizer_bars(upper, run, data.widths.tolist())
    quantizer_bars(lower, run, [q.elements for q in run.quantizers])
    if data.reference is not None:
        upper.plot(
            places, data.reference, color=INK, linestyle=":", drawstyle="steps-mid", label=data.reference_name
        )
    if len(places) <= _MOST_NUMBERS:
        for place, bits in enumerate(data.widths):
            upper.annotate(
                str(bits), (place, bits), (0, 1), textcoords="offset points", ha="center", fontsize=7
            )
    whole_numbers(upper.yaxis)
    upper.set_ylim(0, 1.12 * max(q.max_bits for q in run.quantizers))
    logarithmic(lower, [q.elements for q in run.quantizers])
    name_layers(lower, data.labels)
    legend_above(figure, [upper])
    return figure


@styled
def costs_per_layer(run: RecordedRun) -> Figure:
    """Bits of every quantizer's values and bit operations of every layer; see the interactive figure."""
    data = LayerCosts(run=run)
    if data.missing is not None or data.widths is None:
        return message(data.missing or "")
    titles = ["bits of the values"] + ["bit operations per sample"] * bool(data.products)
    figure, axes = panels(titles, [1.6, 1.6][: len(titles)], labels=data.labels, shared_x=False)
    quantizer_bars(axes[0], run, data.sizes(data.widths).tolist())
    name_layers(axes[0], data.labels)
    if data.reference is not None:
        _dashes(axes[0], data.sizes(data.reference).tolist(), f"at {data.reference_name}")
    if data.products:
        axes[1].bar(
            range(len(data.products)),
            [p.bit_operations(data.widths) for p in data.products],
            0.62,
            color=GOOD,
        )
        name_layers(axes[1], [shortened(p.layer, LONGEST_LABEL) for p in data.products])
        if data.reference is not None:
            reference = [float(p.bit_operations(data.reference)) for p in data.products]
            _dashes(axes[1], reference, f"at {data.reference_name}")
    legend_above(figure, axes)
    return figure


def quantizer_bars(axis: Axes, run: RecordedRun, heights: Sequence[float]) -> None:
    """A bar for each quantizer."""
    for kind, colour in OF_KIND.items():
        places = [place for place, q in enumerate(run.quantizers) if q.kind == kind]
        if places:
            axis.bar(
                places,
                [heights[place] for place in places],
                0.62,
                color=colour,
                edgecolor="white" if _HATCH[kind] else colour,
                hatch=_HATCH[kind],
                linewidth=0,
                label="weights (W)" if kind == "weight" else "activations (A)",
            )


def name_layers(axis: Axes, labels: Sequence[str]) -> None:
    """Names below the bars; of many every few."""
    every = -(-len(labels) // _MOST_LABELS)
    places = range(0, len(labels), every)
    axis.set_xticks(list(places), [labels[place] for place in places], rotation=90, fontsize=6.5)
    axis.set_xlim(-0.7, len(labels) - 0.3)


def _dashes(axis: Axes, values: Sequence[float], name: str) -> None:
    axis.plot(range(len(values)), values, "_", color=INK, markersize=9, markeredgewidth=1.4, label=name)
