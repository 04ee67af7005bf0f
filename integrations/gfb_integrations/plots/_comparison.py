"""The search beside uniform widths."""

from __future__ import annotations

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import figure, message, plain
from gfb_integrations.plots.colours import ACTIVATION, GOOD, INK
from gfb_integrations.plots.data.comparison import Comparison

TITLE = "Comparison with uniform widths"


def comparison(run: RecordedRun) -> go.Figure:
    """Test accuracy against the size of the weights, for the search and for uniform widths.

    Args:
        run: The run; its summary must hold the rows.
    """
    data = Comparison(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    made = figure(TITLE, [data.measured], [240])
    sizes = [model.weight_kilobytes for model in data.models]
    middle = (min(sizes) + max(sizes)) / 2
    for searched, name, symbol, colour in (
        (False, "uniform widths", "circle", ACTIVATION),
        (True, "searched", "star", GOOD),
    ):
        models = [model for model in data.models if model.searched == searched]
        if models:
            made.add_scatter(
                x=[model.weight_kilobytes for model in models],
                y=[model.accuracy for model in models],
                mode="markers+text",
                marker={"symbol": symbol, "size": 16 if searched else 11, "color": colour},
                text=[plain(model.name) for model in models],
                textposition=[
                    f"{'bottom' if searched else 'top'} {'right' if size < middle else 'left'}"
                    for size in (model.weight_kilobytes for model in models)
                ],
                textfont={"size": 12, "color": INK},
                hovertemplate=f"%{{text}}<br>%{{y:{'.2%' if data.is_share else '.4~g'}}}"
                " with %{x:.4~g} kB of weights<extra></extra>",
                name=name,
            )
    values = [model.accuracy for model in data.models]
    across, up = max(sizes) - min(sizes) or max(sizes) or 1.0, max(values) - min(values) or 0.01
    made.update_xaxes(
        range=[min(sizes) - 0.3 * across, max(sizes) + 0.3 * across],
        title={"text": "weights in kB", "standoff": 6},
    )
    made.update_yaxes(
        tickformat=".1%" if data.is_share else ".3~g",
        range=[min(values) - 0.35 * up, max(values) + 0.35 * up],
    )
    return made
