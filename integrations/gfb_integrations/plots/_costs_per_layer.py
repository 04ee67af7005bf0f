"""What every layer costs."""

from __future__ import annotations

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._bars import name_layers, quantizer_bars
from gfb_integrations.plots._figure import figure, message, plain
from gfb_integrations.plots.colours import GOOD, INK
from gfb_integrations.plots.data.layer_costs import LayerCosts
from gfb_integrations.plots.data.widths import layer_label, unique

TITLE = "Costs per layer"


def costs_per_layer(run: RecordedRun) -> go.Figure:
    """Bits of every quantizer's values and bit operations of every layer, beside those of uniform widths.

    Args:
        run: The run; of one under way the last allocation counts.
    """
    data = LayerCosts(run=run)
    if data.missing is not None or data.widths is None:
        return message(TITLE, data.missing or "")
    panels = ["bits of the values"] + ["bit operations per sample"] * bool(data.products)
    made = figure(TITLE, panels, [230, 200][: len(panels)], shared_x=False, labels=data.labels)
    axis = name_layers(made, data.labels)
    sizes = data.sizes(data.widths)
    total = {
        kind: sum(s for s, q in zip(sizes, run.quantizers, strict=True) if q.kind == kind) for kind in _KINDS
    }
    about = [
        f"<b>{plain(q.name)}</b><br>{q.elements:,} values at {bits} bits: {size:,.0f} bits"
        f"<br>{size / max(1.0, total[q.kind]):.1%} of all {q.kind}s"
        for q, bits, size in zip(run.quantizers, data.widths, sizes, strict=True)
    ]
    quantizer_bars(made, run, axis, sizes.tolist(), about, row=1)
    if data.reference is not None:
        _reference(made, axis, data.sizes(data.reference).tolist(), data.reference_name, row=1)
    if data.products:
        _operations(made, data)
    made.update_yaxes(rangemode="tozero", exponentformat="SI", nticks=6)
    made.update_layout(barmode="overlay")
    return made


_KINDS = ("weight", "activation")


def _operations(made: go.Figure, data: LayerCosts) -> None:
    assert data.widths is not None
    layers = [plain(name) for name in unique([layer_label(data.run, p.layer) for p in data.products])]
    values = [product.bit_operations(data.widths) for product in data.products]
    total = max(1, sum(values))
    made.add_bar(
        x=layers,
        y=values,
        width=0.62,
        marker={"color": GOOD},
        name="bit operations",
        showlegend=False,
        customdata=[
            f"<b>{plain(p.layer)}</b><br>{p.macs:,} MACs: {value:,} bit operations"
            f"<br>{value / total:.1%} of all"
            for p, value in zip(data.products, values, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        row=2,
        col=1,
    )
    made.update_xaxes(row=2, col=1, categoryarray=layers, range=[-0.6, len(layers) - 0.4])
    if data.reference is not None:
        reference = [p.bit_operations(data.reference) for p in data.products]
        _reference(made, layers, reference, data.reference_name, row=2)


def _reference(
    made: go.Figure, axis: list[str], values: list[float] | list[int], name: str, *, row: int
) -> None:
    made.add_scatter(
        x=axis,
        y=values,
        mode="markers",
        marker={
            "symbol": "line-ew",
            "size": 13 if len(axis) <= 30 else 7,
            "line": {"color": INK, "width": 2},
        },
        name=f"at {name}",
        hovertemplate="at " + name + ": %{y:,}<extra></extra>",
        legendgroup="reference",
        showlegend=row == 1,
        row=row,
        col=1,
    )
