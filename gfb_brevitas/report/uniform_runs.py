"""A search beside uniform widths that were trained as long, in the run's summary."""

from __future__ import annotations

from collections.abc import Mapping

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.report.comparison import Contender
from gfb_brevitas.search import SearchResult
from gfb_brevitas.search.history import json_ready
from gfb_brevitas.search.run_folder import add_to_summary


def add_comparison(
    searched: SearchResult,
    uniform: Mapping[str, SearchResult],
    *,
    measured: str = "validation metric",
) -> list[Contender]:
    """Compare a search with fixed widths by the validation metric, and keep the rows in the run's summary.

    The report, ``gfb show`` and :func:`gfb_brevitas.report.comparison_table` show them.

    Example:
        >>> space = searchable.space  # doctest: +SKIP
        >>> fixed = fit(
        ...     searchable, ..., allocation=space.uniform(3), run_folder="runs/uniform-3"
        ... )  # doctest: +SKIP
        >>> rows = add_comparison(searched, {"uniform 3": fixed})  # doctest: +SKIP

    Args:
        searched: The result of the search.
        uniform: Results of :func:`gfb_brevitas.fit` with an ``allocation`` and otherwise the same arguments,
            by names that begin with ``"uniform"``.
        measured: What the metric is.

    Returns:
        The rows, the search last.

    Raises:
        ConfigurationError: If a name does not begin so.
        CheckpointError: If the run's folder holds no summary, or it cannot be written.
    """
    for name in uniform:
        if not name.startswith("uniform"):
            raise ConfigurationError(
                f"Names of fixed widths begin with 'uniform', e.g. 'uniform 3'; got {name!r}."
            )
    rows = [
        Contender.of(
            name,
            result.searchable.space,
            result.allocation,
            accuracy=result.metric,
            epochs=len(result.history.epochs),
            seconds=result.seconds,
            measured=measured,
        )
        for name, result in {**uniform, "searched": searched}.items()
    ]
    if searched.run_folder is not None:
        add_to_summary(searched.run_folder, {"comparison": json_ready([row.to_dict() for row in rows])})
    return rows
