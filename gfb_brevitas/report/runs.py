"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from gfb_brevitas.report.budgets import ABOVE, heading_of, use_cell
from gfb_brevitas.report.names import Name
from gfb_brevitas.report.verdict import comparison_in_words
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.terminal import compact_table


def run_rows(runs: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Runs as plain data: how far each is, its metric, its budgets and its allocation.

    Args:
        runs: The runs; of one that has not ended the last round counts.
    """
    return [_row(run) for run in runs]


def runs_tables(runs: Sequence[RecordedRun]) -> list[Table | str]:
    """What the terminal shows: a row per run, how each compares with fixed widths, the widths side by side.

    Args:
        runs: The runs.
    """
    rows = run_rows(runs)
    words = {str(run.path): comparison_in_words(run.summary or {}) for run in runs}
    judged = "\n".join(f"{name}: {' '.join(said)}" for name, said in words.items() if said)
    parts: list[Table | str] = [_overview(rows), *([judged] if judged else [])]
    return [*parts, _widths(rows)] if any(row["allocation"] for row in rows) else parts


def _row(run: RecordedRun) -> dict[str, Any]:
    rounds = run.history.rounds
    if run.summary is not None:
        metric, costs = run.summary.get("metric"), run.summary.get("costs", [])
        allocation: Mapping[str, int] = run.allocation or {}
    elif rounds:
        metric, costs, allocation = rounds[-1].metric, list(rounds[-1].costs), rounds[-1].allocation
    else:
        metric, costs, allocation = None, [], {}
    return {
        "run": str(run.path),
        "state": run.status.state,
        "status": run.status.to_dict(),
        "metric": metric,
        "test_metric": (run.summary or {}).get("test_metric"),
        "rounds": len(rounds),
        "epochs": len(run.history.epochs),
        "evaluations": sum({(g.round, g.step): g.evaluations for g in run.history.generations}.values()),
        "seconds": run.history.seconds,
        "seed": run.configuration.get("search", {}).get("seed"),
        "costs": [dict(cost) for cost in costs],
        "allocation": dict(allocation),
    }


def _overview(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = compact_table(caption_justify="left")
    table.add_column("run")
    columns = _columns(rows)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(rows):
        table.add_row(Name(row["run"]), *(cells[place] for cells in columns.values()))
    if not all(cost["feasible"] for row in rows for cost in row["costs"]):
        table.caption = f"{ABOVE} above the budget"
    return table


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str | Text]]:
    """Cells by heading."""
    columns: dict[str, list[str | Text]] = {"state": [row["state"] for row in rows]}
    for name, heading in (("metric", "metric"), ("test_metric", "test")):
        if name == "metric" or any(row[name] is not None for row in rows):
            columns[heading] = ["–" if row[name] is None else f"{row[name]:.4g}" for row in rows]
    for budget in dict.fromkeys(cost["name"] for row in rows for cost in row["costs"]):
        columns[heading_of(budget)] = [use_cell(_cost(row, budget)) for row in rows]
    for name, heading in (("epochs", "epochs"), ("evaluations", "candi-\ndates"), ("seed", "seed")):
        columns[heading] = [str(row[name]) for row in rows]
    columns["time"] = [f"{row['seconds']:.0f} s" for row in rows]
    # What is not about the result goes first where there is no room.
    for heading in ("candi-\ndates", "epochs", "seed"):
        if _width(columns) > 62:
            del columns[heading]
    return columns


def _width(columns: Mapping[str, Sequence[str | Text]]) -> int:
    """Characters that columns take."""
    parts = ((*heading.split("\n"), *map(str, cells)) for heading, cells in columns.items())
    return sum(2 + max(map(len, texts)) for texts in parts)


def _cost(row: Mapping[str, Any], budget: str) -> Mapping[str, Any] | None:
    return next((cost for cost in row["costs"] if cost["name"] == budget), None)


def _widths(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = compact_table()
    table.add_column("quantizer")
    for row in rows:
        table.add_column(Name(row["run"]), justify="right")
    for name in dict.fromkeys(name for row in rows for name in row["allocation"]):
        table.add_row(Name(name), *(str(row["allocation"].get(name, "–")) for row in rows))
    return table
