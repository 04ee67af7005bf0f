"""Which layers are sensitive to their width."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.space import Vector
from gfb_integrations.plots._bars import name_layers, quantizer_bars
from gfb_integrations.plots._figure import figure, message, numbers, plain
from gfb_integrations.plots.colours import HEAT_SCALE, INK
from gfb_integrations.plots.data.sensitivity import Sensitivity

TITLE = "Sensitivity"


def sensitivity(run: RecordedRun) -> go.Figure:
    """The expected increase of the loss by quantizer and width, with the widths that were chosen.

    Where the search made no such estimate: what the losses of the candidates say about each quantizer.

    Args:
        run: The run.
    """
    data = Sensitivity(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    return _effects(data) if data.increases is None else _estimate(data, data.increases)


def _estimate(data: Sensitivity, increases: Vector) -> go.Figure:
    bits = [b for b in range(1, increases.shape[1]) if np.isfinite(increases[:, b]).any()]
    made = figure(TITLE, ["bit width"], [max(150, 34 * len(bits))], labels=data.labels)
    axis = name_layers(made, data.labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.log10(increases[:, bits]).T
    finite = exponents[np.isfinite(exponents)]
    high = float(finite.max(initial=-6.0))
    low = max(float(finite.min(initial=high)), high - 6.0)
    shown = np.where(np.isneginf(exponents), low, np.clip(exponents, low, None))
    names = [plain(q.name) for q in data.run.quantizers]
    made.add_heatmap(
        x=axis,
        y=bits,
        z=[numbers(row) for row in shown],
        zmin=low,
        zmax=high if high > low else low + 1,
        colorscale=HEAT_SCALE,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        customdata=[
            [[name, value] for name, value in zip(names, numbers(increases[:, b]), strict=True)] for b in bits
        ],
        hovertemplate="<b>%{customdata[0]}</b><br>%{y} bits: +%{customdata[1]:.3~g}<extra></extra>",
        colorbar=_increase_bar(low, high),
    )
    if data.widths is not None:
        size = min(11.0, max(4.0, 700 / len(axis)))
        made.add_scatter(
            x=axis,
            y=data.widths.tolist(),
            mode="markers",
            marker={
                "symbol": "square-open",
                "size": size,
                "color": INK,
                "line": {"width": size / 4, "color": INK},
            },
            name="width chosen",
            showlegend=True,
            hoverinfo="skip",
        )
    made.update_yaxes(showgrid=False, dtick=1, range=[bits[0] - 0.55, bits[-1] + 0.55])
    made.layout.margin.b += 62
    made.layout.height += 62
    return made


def _increase_bar(low: float, high: float) -> dict[str, object]:
    ticks = list(range(int(np.ceil(low)), int(np.floor(high)) + 1))
    return {
        "title": {"text": "increase of the loss<br> ", "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "tickvals": ticks,
        "ticktext": [f"{10.0**tick:g}" for tick in ticks],
        "thickness": 10,
        "len": 0.7,
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "outlinewidth": 0,
    }


def _effects(data: Sensitivity) -> go.Figure:
    made = figure(TITLE, ["effect of a quantizer's width on the loss"], [240], labels=data.labels)
    axis = name_layers(made, data.labels)
    values = numbers(data.scores)
    about = [
        f"<b>{plain(q.name)}</b><br>" + ("its width never varied" if value is None else f"effect {value:.3g}")
        for q, value in zip(data.run.quantizers, values, strict=True)
    ]
    quantizer_bars(made, data.run, axis, [value or 0.0 for value in values], about, row=1)
    made.update_layout(barmode="overlay")
    made.update_yaxes(zeroline=True, zerolinecolor=INK, zerolinewidth=1)
    return made
