"""What came out of a run: its state, key figures and the budgets' use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gfb_brevitas.quantities import quantity
from gfb_brevitas.report.verdict import comparison_in_words
from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.data.table import counted, listed, number_text
from gfb_integrations.report.asked import planned_epochs


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A key figure.

    Attributes:
        name: What it is.
        value: Its value, for people.
        note: What to know about it.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class BudgetUse:
    """How much of a budget is used.

    Attributes:
        name: Its cost.
        value: The cost.
        limit: The most that it may be.
        unit: Unit of both.
        use: Share of the limit.
        kept: Whether the budget is kept.
    """

    name: str
    value: str
    limit: str
    unit: str
    use: float
    kept: bool


def budget_uses(run: RecordedRun) -> tuple[BudgetUse, ...]:
    """The use of every budget by the result, or of a run under way by its last allocation."""
    if run.summary is not None:
        rows = run.summary.get("costs", [])
    else:
        found = (getattr(record, "costs", None) for record in reversed(run.history.records))
        rows = next((costs for costs in found if costs), ())
    return tuple(_use(row) for row in rows)


def _use(row: Mapping[str, Any]) -> BudgetUse:
    use = row.get("use")
    return BudgetUse(
        name=str(row["name"]),
        value=quantity(row["value"]),
        limit=quantity(row["limit"]),
        unit=str(row.get("unit", "")),
        use=math.nan if use is None else float(use),
        kept=bool(row.get("feasible", True)),
    )


def best_metric(run: RecordedRun) -> float:
    """The validation metric of the result, or of a run under way the best within the budgets so far."""
    if run.summary is not None and isinstance(run.summary.get("metric"), int | float):
        return float(run.summary["metric"])
    marked = [epoch.metric for epoch in run.history.epochs if epoch.best]
    return marked[-1] if marked else math.nan


def progress_in_words(run: RecordedRun) -> str:
    """How far a run is that has not ended."""
    rounds = run.configuration.get("search", {}).get("rounds", 0)
    way_on = "" if run.status.state == "running" else " Repeating its command lets it go on."
    return (
        f"This run {run.status.in_words().rstrip('.')}. Done: "
        f"{len(run.history.rounds)} of {counted(int(rounds), 'round')}, "
        f"{len(run.history.epochs):,} of {counted(planned_epochs(run), 'epoch')} and "
        f"{counted(len(run.history.steps), 'gradient-free step')} so far."
        f"{way_on} This page shows what its folder held when the page was written."
    )


def in_words(run: RecordedRun) -> Iterator[str]:
    """The result in a few sentences."""
    if run.allocation is not None:
        widths = [run.allocation[q.name] for q in run.quantizers]
        if widths:
            span = (
                f"{min(widths)} to {max(widths)} bits" if min(widths) < max(widths) else f"{widths[0]} bits"
            )
            yield f"The search gave {counted(len(widths), 'quantizer')} widths of {span}."
    uses = budget_uses(run)
    if uses and run.summary is not None:
        over = [use.name for use in uses if not use.kept]
        if over:
            yield f"Above its budget: {listed(over)}."
        else:
            fullest = max(uses, key=lambda use: use.use)
            kept = {1: "The budget is kept", 2: "Both budgets are kept"}.get(
                len(uses), f"All {len(uses)} budgets are kept"
            )
            yield f"{kept}; {fullest.name} is used to {fullest.use:.1%}."
    elif not run.budgets:
        yield "There was no budget."
    yield from comparison_in_words(run.summary or {})


def key_figures(run: RecordedRun) -> Iterator[Figure]:
    """The figures at the top of the page."""
    metric = best_metric(run)
    note = "best so far" if run.summary is None else f"after epoch {run.summary.get('best_epoch', '–')}"
    yield Figure(name="validation metric", value=number_text(metric), note=note)
    tested = (run.summary or {}).get("test_metric")
    if isinstance(tested, float):
        yield Figure(name="test metric", value=number_text(tested), note="not used to choose")
    accuracy = (run.summary or {}).get("accuracy")
    if isinstance(accuracy, float):
        yield Figure(name="test accuracy", value=f"{accuracy:.2%}", note="not used to choose")
    uses = [use for use in budget_uses(run) if math.isfinite(use.use)]
    if uses:
        fullest = max(uses, key=lambda use: use.use)
        yield Figure(name="fullest budget", value=f"{fullest.use:.1%}", note=fullest.name.replace("_", " "))
    evaluations = sum(step.evaluations for step in run.history.steps)
    yield Figure(
        name="candidates",
        value=f"{evaluations:,}",
        note=counted(len(run.history.steps), "gradient-free step"),
    )
    yield Figure(
        name="epochs", value=f"{len(run.history.epochs):,}", note=f"of {planned_epochs(run):,} planned"
    )
    yield Figure(name="time", value=duration(run.history.seconds), note="search and training")


def duration(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> duration(48.2), duration(125), duration(7300)
        ('48 s', '2 min 5 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
