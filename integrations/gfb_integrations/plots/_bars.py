"""Bars in forward order, weights and activations told apart by colour and hatching."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import plain
from gfb_integrations.plots.colours import HATCH_OF_KIND, INK, OF_KIND

NAME_OF_KIND = {"weight": "weights (W)", "activation": "activations (A)"}
_MOST_HATCHED = 80


def name_layers(made: go.Figure, labels: Sequence[str]) -> list[str]:
    """Make the horizontal axes those of names in forward order; the places on it, for traces."""
    axis = [plain(label) for label in labels]
    size = 11 if len(axis) <= 60 else 9
    made.update_xaxes(
        type="category",
        categoryorder="array",
        categoryarray=axis,
        range=[-0.6, len(axis) - 0.4],
        tickfont={"size": size},
        autotickangles=[0, -90],
    )
    return axis


def quantizer_bars(
    made: go.Figure,
    run: RecordedRun,
    axis: Sequence[str],
    heights: Sequence[float],
    about: Sequence[str],
    *,
    row: int,
    legend: bool = True,
    with_numbers: bool = False,
) -> None:
    """Draw a bar for each quantizer.

    Args:
        made: The figure.
        run: The run.
        axis: Places on the horizontal axis.
        heights: Heights of the bars.
        about: What each says when it is pointed at.
        row: Panel, from 1.
        legend: Whether the legend names the kinds.
        with_numbers: Whether the heights are written above the bars.
    """
    for kind, colour in OF_KIND.items():
        places = [place for place, q in enumerate(run.quantizers) if q.kind == kind]
        if not places:
            continue
        hatch = HATCH_OF_KIND[kind] if len(axis) <= _MOST_HATCHED else ""
        made.add_bar(
            x=[axis[place] for place in places],
            y=[heights[place] for place in places],
            width=0.62 if len(axis) <= _MOST_HATCHED else 0.9,
            name=NAME_OF_KIND[kind],
            legendgroup=kind,
            showlegend=legend,
            marker={
                "color": colour,
                "line": {"color": colour, "width": 1},
                "pattern": {
                    "shape": hatch,
                    "fillmode": "overlay",
                    "fgcolor": "#ffffff",
                    "size": 7,
                    "solidity": 0.28,
                },
            },
            text=[str(heights[place]) for place in places] if with_numbers else None,
            textposition="outside",
            textfont={"size": 12, "color": INK},
            cliponaxis=False,
            customdata=[about[place] for place in places],
            hovertemplate="%{customdata}<extra></extra>",
            row=row,
            col=1,
        )
