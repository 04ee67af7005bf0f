"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.terminal import compact_table


def run_rows(runs: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Runs as plain data: how far each is, its metric, its budgets and its allocation.

    Args:
        runs: The runs; of one that has not ended the last round counts.
    """
    return [_row(run) for run in runs]


def runs_tables(runs: Sequence[RecordedRun]) -> list[Table]:
    """Tables for the terminal: one row per run, and the widths side by side.

    Args:
        runs: The runs.
    """
    rows = run_rows(runs)
    tables = [_overview(rows)]
    return [*tables, _widths(rows)] if any(row["allocation"] for row in rows) else tables


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
        "rounds": len(rounds),
        "epochs": len(run.history.epochs),
        "evaluations": sum({(g.round, g.step): g.evaluations for g in run.history.generations}.values()),
        "seconds": run.history.seconds,
        "seed": run.configuration.get("search", {}).get("seed"),
        "costs": [dict(cost) for cost in costs],
        "allocation": dict(allocation),
    }


def _overview(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _side_by_side("run", rows)
    table.add_row("state", *(row["state"] for row in rows))
    table.add_row("metric", *("–" if row["metric"] is None else f"{row['metric']:.4g}" for row in rows))
    for name in ("rounds", "epochs", "evaluations", "seed"):
        table.add_row(name, *(str(row[name]) for row in rows))
    table.add_row("time", *(f"{row['seconds']:.0f} s" for row in rows))
    for budget in dict.fromkeys(cost["name"] for row in rows for cost in row["costs"]):
        table.add_row(budget, *(_use(row["costs"], budget) for row in rows))
    return table


def _use(costs: Sequence[Mapping[str, Any]], name: str) -> str:
    found = next((cost for cost in costs if cost["name"] == name), None)
    if found is None:
        return "–"
    return f"{found['value']:.6g} ({found['use']:.0%})"


def _widths(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _side_by_side("quantizer", rows)
    for name in dict.fromkeys(name for row in rows for name in row["allocation"]):
        table.add_row(name, *(str(row["allocation"].get(name, "–")) for row in rows))
    return table


def _side_by_side(first: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = compact_table()
    table.add_column(first, overflow="fold")
    for row in rows:
        table.add_column(row["run"], justify="right", overflow="fold")
    return table
