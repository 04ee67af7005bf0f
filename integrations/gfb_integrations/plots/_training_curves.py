"""Training curves with the gradient-free steps shaded, as in Fig. 6 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._figure import figure, log_axis, message, numbers, shade
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import ACCENT, ACTIVATION, GOOD, STEP_BAND, WEIGHT
from gfb_integrations.plots.data.training import TrainedEpoch, Training

TITLE = "Training and search in turn"


def training_curves(run: RecordedRun) -> go.Figure:
    """Training loss and validation metric of every epoch; where it is shaded the widths moved.

    Args:
        run: The run.
    """
    data = Training(run=run)
    if data.missing is not None:
        return message(TITLE, data.missing)
    made = figure(TITLE, ["loss", "validation metric"], [230, 230])
    shade(made, [(step.begin, step.begin + 1) for step in data.steps], colour=STEP_BAND)
    losses = _losses(made, data)
    _searches(made, data)
    _metrics(made, data)
    if needs_log(losses):
        made.update_yaxes(row=1, col=1, **log_axis(losses))
    ticks = data.ticks()
    made.update_xaxes(
        range=[0, data.end + 0.3],
        tickvals=[epoch.position for epoch in ticks],
        ticktext=[f"{epoch.record.epoch:,}" for epoch in ticks],
    )
    made.update_xaxes(row=2, col=1, title={"text": "epochs", "standoff": 6})
    made.add_scatter(  # of the legend only
        x=[None],
        y=[None],
        mode="markers",
        marker={
            "symbol": "square",
            "size": 13,
            "color": STEP_BAND,
            "line": {"color": ACTIVATION, "width": 1},
        },
        name="gradient-free step",
        row=1,
        col=1,
    )
    return made


def _losses(made: go.Figure, data: Training) -> list[float | None]:
    losses = numbers(epoch.record.train_loss for epoch in data.epochs)
    made.add_scatter(
        x=[epoch.position for epoch in data.epochs],
        y=losses,
        mode="lines+markers",
        line={"color": WEIGHT, "width": 2},
        marker={"size": 5},
        customdata=[epoch.record.epoch for epoch in data.epochs],
        hovertemplate="epoch %{customdata}<br>training loss %{y:.4~g}<extra></extra>",
        name="training loss",
        row=1,
        col=1,
    )
    return losses


def _searches(made: go.Figure, data: Training) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    names: list[str | None] = []
    for step in data.steps:
        for position, loss in step.losses:
            x.append(position)
            y.append(loss)
            names.append(step.name)
        x, y, names = [*x, None], [*y, None], [*names, None]
    if any(value is not None for value in y):
        made.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": ACTIVATION, "width": 2, "dash": "dot"},
            customdata=names,
            hovertemplate="step %{customdata}<br>best feasible loss %{y:.4~g}<extra></extra>",
            name="best feasible loss of a step",
            row=1,
            col=1,
        )


def _metrics(made: go.Figure, data: Training) -> None:
    for feasible, name, symbol in (
        (True, "within budgets", "circle"),
        (False, "above a budget", "circle-open"),
    ):
        epochs = [epoch for epoch in data.epochs if epoch.record.feasible == feasible]
        if epochs:
            _metric_points(made, epochs, name if data.run.budgets else "validation", symbol)
    made.add_scatter(
        x=[epoch.position for epoch in data.epochs],
        y=numbers(epoch.record.metric for epoch in data.epochs),
        mode="lines",
        line={"color": ACCENT, "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
        row=2,
        col=1,
    )
    if data.best is not None:
        _metric_points(made, [data.best], "best", "star", size=15, colour=GOOD)


def _metric_points(
    made: go.Figure,
    epochs: Sequence[TrainedEpoch],
    name: str,
    symbol: str,
    *,
    size: int = 6,
    colour: str = ACCENT,
) -> None:
    made.add_scatter(
        x=[epoch.position for epoch in epochs],
        y=numbers(epoch.record.metric for epoch in epochs),
        mode="markers",
        marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.2, "color": colour}},
        customdata=[epoch.record.epoch for epoch in epochs],
        hovertemplate="epoch %{customdata}<br>validation metric %{y:.4~g}<extra>" + name + "</extra>",
        name=name,
        row=2,
        col=1,
    )
