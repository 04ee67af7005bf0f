"""Training curves with the gradient-free steps shaded, as in Fig. 6 of the paper."""

from __future__ import annotations

from matplotlib.figure import Figure

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots._scales import needs_log
from gfb_integrations.plots.colours import ACCENT, ACTIVATION, GOOD, STEP_BAND, WEIGHT
from gfb_integrations.plots.data.training import Training
from gfb_integrations.plots.paper._figure import legend_above, logarithmic, message, panels, styled


@styled
def training_curves(run: RecordedRun) -> Figure:
    """Training loss and validation metric of every epoch; see the interactive figure."""
    data = Training(run=run)
    if data.missing is not None:
        return message(data.missing)
    figure, (upper, lower) = panels(["loss", "validation metric"], [1.9, 1.9])
    for axis in (upper, lower):
        for place, step in enumerate(data.steps):
            label = "gradient-free step" if place == 0 else None
            axis.axvspan(step.begin, step.begin + 1, color=STEP_BAND, linewidth=0, label=label)
    positions = [epoch.position for epoch in data.epochs]
    losses = [epoch.record.train_loss for epoch in data.epochs]
    upper.plot(positions, losses, "o-", color=WEIGHT, markersize=2.5, label="training loss")
    searched = [step for step in data.steps if step.losses]
    for place, step in enumerate(searched):
        label = "best feasible loss of a step" if place == 0 else None
        x, y = zip(*step.losses, strict=True)
        upper.plot(x, y, ":", color=ACTIVATION, label=label)
    if needs_log(losses):
        logarithmic(upper, losses)
    lower.plot(positions, [epoch.record.metric for epoch in data.epochs], color=ACCENT, linewidth=0.9)
    for feasible, name, face in ((True, "within budgets", ACCENT), (False, "above a budget", "white")):
        epochs = [epoch for epoch in data.epochs if epoch.record.feasible == feasible]
        if epochs:
            lower.plot(
                [epoch.position for epoch in epochs],
                [epoch.record.metric for epoch in epochs],
                "o",
                markeredgecolor=ACCENT,
                markerfacecolor=face,
                markersize=3.2,
                label=name if run.budgets else None,
            )
    if data.best is not None:
        lower.plot(
            [data.best.position], [data.best.record.metric], "*", color=GOOD, markersize=9, label="best"
        )
    ticks = data.ticks()
    lower.set_xticks([epoch.position for epoch in ticks], [f"{epoch.record.epoch:,}" for epoch in ticks])
    lower.set_xlim(0, data.end + 0.3)
    lower.set_xlabel("epochs")
    legend_above(figure, [upper, lower], columns=4)
    return figure
