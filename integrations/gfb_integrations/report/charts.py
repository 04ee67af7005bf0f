"""The charts of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations import plots
from gfb_integrations.plots import data
from gfb_integrations.plots.data import ChartData, DataTable


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A section with a chart.

    Attributes:
        key: Name in links.
        title: Heading.
        missing: Why there is no chart; ``None`` if there is.
        description: What it shows, in words.
        table: What it shows, in numbers.
        figure: JSON of the figure.
        height_px: Its height.
    """

    key: str
    title: str
    missing: str | None
    description: str = ""
    table: DataTable | None = None
    figure: str = ""
    height_px: int = 0


_CHARTS: tuple[tuple[str, str, type, str], ...] = (
    ("bits", "Bits per layer", data.BitsPerLayer, "bits_per_layer"),
    ("front", "Everything that was evaluated", data.Front, "front"),
    ("convergence", "Convergence of the search", data.Convergence, "convergence"),
    ("training", "Training and search in turn", data.Training, "training_curves"),
    ("clipping", "Clipping values", data.Clipping, "clipping_curves"),
    ("sensitivity", "Which layers are sensitive", data.Sensitivity, "sensitivity"),
    ("costs", "Costs per layer", data.LayerCosts, "costs_per_layer"),
)


def comparison_chart(run: RecordedRun) -> Chart:
    """Uniform widths, where they were trained."""
    return _chart(run, "comparison", "Comparison", data.Comparison, plots.comparison)


def charts(run: RecordedRun) -> Iterator[Chart]:
    """All other charts, in the order of the page."""
    if data.ResourcesPerLayer(run=run).missing is None:
        title = "Budgets, layer by layer"
        yield _chart(run, "resources", title, data.ResourcesPerLayer, plots.resources_per_layer)
    for key, title, kind, drawn_by in _CHARTS:
        yield _chart(run, key, title, kind, getattr(plots, drawn_by))


def _chart(
    run: RecordedRun, key: str, title: str, kind: type, draw: Callable[[RecordedRun], go.Figure]
) -> Chart:
    shown: ChartData = kind(run=run)
    if shown.missing is not None:
        return Chart(key=key, title=title, missing=shown.missing)
    figure = draw(run)
    figure.layout.title = None
    figure.layout.margin.t -= 14
    figure.layout.height -= 14
    return Chart(
        key=key,
        title=title,
        missing=None,
        description=shown.description(),
        table=shown.table(),
        figure=str(figure.to_json()),
        height_px=int(figure.layout.height),
    )
