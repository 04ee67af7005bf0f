"""A search beside fixed widths that were trained as long, in the run's summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gfb_brevitas.report.comparison import Contender
from gfb_brevitas.search import SearchResult
from gfb_brevitas.search.history import json_ready
from gfb_brevitas.search.run_folder import add_to_summary


def add_comparison(
    searched: SearchResult,
    baselines: Mapping[str, SearchResult],
    *,
    measured: str = "validation metric",
    test_measured: str | None = None,
    notes: Sequence[str] = (),
) -> list[Contender]:
    """Compare a search with fixed widths by the validation metric, and keep the rows in the run's summary.

    The report, ``gfb show`` and :func:`gfb_brevitas.report.comparison_table` show them, and
    :func:`gfb_brevitas.report.verdict` says them in words.

    Example:
        >>> baseline = widest_uniform(Constraints(searchable.space, budgets))  # doctest: +SKIP
        >>> fixed = fit(
        ...     searchable, ..., allocation=baseline.allocation, run_folder="runs/uniform"
        ... )  # doctest: +SKIP
        >>> rows = add_comparison(searched, {baseline.name: fixed})  # doctest: +SKIP

    Args:
        searched: The result of the search.
        baselines: Results of :func:`gfb_brevitas.fit` with an ``allocation`` and otherwise the same
            arguments, by name; those of uniform widths begin with ``"uniform"``.
        measured: What the metric is, e.g. ``"validation accuracy"``, which is shown in percent.
        test_measured: What the test metric is, where it is another one.
        notes: What else there is to say, e.g. that no uniform widths keep the budgets.

    Returns:
        The rows, the search last.

    Raises:
        CheckpointError: If the run's folder holds no summary, or it cannot be written.
    """
    named = {**dict(baselines), "searched": searched}
    rows = [_row(name, result, measured, test_measured, result is searched) for name, result in named.items()]
    if searched.run_folder is not None:
        figures = {"comparison": [row.to_dict() for row in rows], "comparison_notes": list(notes)}
        add_to_summary(searched.run_folder, json_ready(figures))
    return rows


def _row(
    name: str, result: SearchResult, measured: str, test_measured: str | None, searched: bool
) -> Contender:
    return Contender.of(
        name,
        result.searchable.space,
        result.allocation,
        accuracy=result.metric,
        epochs=len(result.history.epochs),
        seconds=result.seconds,
        measured=measured,
        costs=result.costs,
        searched=searched,
        test=result.test_metric,
        test_measured=test_measured,
    )
