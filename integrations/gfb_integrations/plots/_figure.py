"""What all plotly figures look like."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gfb_integrations.plots.colours import BAND, GOOD, GRID, INK, MUTED

PANEL_GAP_PX = 62
_PHONE_PX = 290
MARGIN_PX = {"l": 52, "r": 44, "t": 66, "b": 48}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def figure(
    title: str,
    panels: Sequence[str],
    heights_px: Sequence[int],
    *,
    shared_x: bool = True,
    labels: Sequence[str] = (),
) -> go.Figure:
    """An empty figure of panels one below the other.

    Args:
        title: Its title.
        panels: Titles of the panels; they stand above them, where there is room on a phone as well.
        heights_px: Heights of the panels.
        shared_x: Whether the panels share the horizontal axis; only the last one names its ticks then.
        labels: Names on the horizontal axis, where there are some; long ones need room below the panels.
    """
    label_px = _label_height_px(labels)
    gap = PANEL_GAP_PX - 22 * shared_x + (0 if shared_x else label_px)
    inner = sum(heights_px) + gap * (len(panels) - 1)
    made = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=shared_x,
        row_heights=[height / sum(heights_px) for height in heights_px],
        vertical_spacing=gap / inner if len(panels) > 1 else None,
    )
    made.update_layout(
        template=go.layout.Template(),
        title={
            "text": title,
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "pad": {"l": 12},
            "font": {"size": 17},
        },
        height=inner + MARGIN_PX["t"] + MARGIN_PX["b"] + label_px,
        margin={**MARGIN_PX, "b": MARGIN_PX["b"] + label_px, "autoexpand": True},
        font={"family": _FONT, "size": 13, "color": INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        hovermode="closest",
        hoverlabel={
            "bgcolor": "#ffffff",
            "bordercolor": MUTED,
            "font": {"color": INK, "family": _FONT, "size": 13},
        },
        hoverdistance=30,
        dragmode="zoom",
        modebar={"orientation": "v"},  # in the margin, never over the legend
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "font": {"size": 12},
            "bgcolor": "rgba(0,0,0,0)",
            "itemsizing": "trace",
        },
    )
    axis = {"zeroline": False, "linecolor": MUTED, "tickcolor": MUTED, "ticks": "outside"}
    # Names may need room below, never at the sides: on a phone nothing would be left between them.
    made.update_xaxes(**axis, automargin="height", showgrid=False, showline=True, ticklen=4)
    made.update_yaxes(**axis, automargin="width", showgrid=True, gridcolor=GRID, showline=False, ticklen=0)
    made.update_yaxes(exponentformat="power")
    for row, text in enumerate(panels, start=1):
        _title_panel(made, row, text)
    made.update_layout(legend={"y": 1 + 26 / inner, "yanchor": "bottom"})
    return made


def _title_panel(made: go.Figure, row: int, text: str) -> None:
    number = "" if row == 1 else str(row)
    made.add_annotation(
        text=f"<b>{plain(text)}</b>",
        x=0,
        xref="paper",
        xanchor="left",
        y=1,
        yref=f"y{number} domain",
        yanchor="bottom",
        yshift=5,
        showarrow=False,
        align="left",
        font={"size": 13, "color": INK},
    )


def _label_height_px(labels: Sequence[str]) -> float:
    """Height of upright labels beyond that of lying ones, for which there may be no room on a phone."""
    lying_px = sum(7 * (len(label) + 2) for label in labels)
    return max(0, min(230, 6.4 * max(map(len, labels))) - 10) if lying_px > _PHONE_PX else 0


def message(title: str, text: str) -> go.Figure:
    """A figure that says why there is nothing to draw."""
    made = figure(title, [""], [160])
    made.update_xaxes(visible=False)
    made.update_yaxes(visible=False)
    made.add_annotation(
        text=plain(text), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14}
    )
    return made


def plain(text: str) -> str:
    """A name as it is: plotly reads the texts of a chart as markup.

    Example:
        >>> plain("<b>layer</b> & %{x}")
        '&lt;b&gt;layer&lt;/b&gt; &amp; %&#123;x}'
    """
    return html.escape(text, quote=False).replace("{", "&#123;").replace("$", "&#36;")


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Plain numbers, ``None`` where not finite; every version of plotly.js reads lists."""
    return [
        float(value) if math.isfinite(value) else None for value in np.asarray(list(values), dtype=np.float64)
    ]


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """Settings of a logarithmic axis for values."""
    few = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    decades = math.log10(max(few) / min(few)) if few else 0.0
    return {"type": "log", "dtick": 1 if decades > 1.8 else "D2", "tickformat": "~g"}


def budget_line(made: go.Figure, limit: float, row: int = 1) -> None:
    """An upright line where a budget ends."""
    upright(made, limit, row, "budget", colour=GOOD, dash="dash", width=2)


def upright(
    made: go.Figure, x: float, row: int, text: str, *, colour: str, dash: str, width: float, y: float = 1
) -> None:
    """An upright line through a panel, with its name at a height that is a share of the panel's."""
    number = "" if row == 1 else str(row)
    made.add_shape(
        type="line",
        x0=x,
        x1=x,
        y0=0,
        y1=1,
        xref=f"x{number}",
        yref=f"y{number} domain",
        line={"color": colour, "dash": dash, "width": width},
        layer="below",
    )
    made.add_annotation(
        text=plain(text),
        x=x,
        xref=f"x{number}",
        y=y,
        yref=f"y{number} domain",
        yanchor="top",
        xanchor="left",
        xshift=3,
        showarrow=False,
        font={"size": 11, "color": colour},
        bgcolor="rgba(255,255,255,0.8)",
    )


def shade(made: go.Figure, spans: Iterable[tuple[float, float]], *, colour: str = BAND) -> None:
    """Shade spans of the horizontal axis over all panels."""
    for begin, end in spans:
        made.add_shape(
            type="rect",
            x0=begin,
            x1=end,
            y0=0,
            y1=1,
            xref="x",
            yref="paper",
            fillcolor=colour,
            line_width=0,
            layer="below",
        )
