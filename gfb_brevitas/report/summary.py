"""Tables of a run's ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from gfb_brevitas.report.comparison import comparison_of, comparison_table
from gfb_brevitas.terminal import compact_table


def summary_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Tables for the terminal: the numbers, the budgets if there are any, and the allocation.

    Args:
        summary: As :meth:`gfb_brevitas.search.SearchResult.summary`; further numbers are shown too.

    Raises:
        KeyError: If something is missing.
        TypeError: If something is of another kind than in a summary.
        AttributeError: Likewise.
        ValueError: Likewise.
    """
    tables = [_numbers(summary), _budgets(summary["costs"]), _allocation(summary["allocation"])]
    compared = comparison_of(summary)
    if compared:
        tables.append(comparison_table(compared, compared[-1].measured))
    return [table for table in tables if table.row_count]


def _numbers(summary: Mapping[str, Any]) -> Table:
    table = _table("figure", "value")
    for name, value in summary.items():
        if isinstance(value, int | float | str) and name not in ("format", "version"):
            table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    return table


def _budgets(costs: list[Mapping[str, Any]]) -> Table:
    table = _table("budget on", "value", "limit", "used", "unit")
    table.columns[-1].justify = "left"
    for row in costs:
        used = f"{row['use']:.1%}" if row["feasible"] else f"{row['use']:.1%}, too much"
        table.add_row(row["name"], f"{row['value']:.6g}", f"{row['limit']:.6g}", used, row["unit"])
    return table


def _allocation(allocation: Mapping[str, int]) -> Table:
    table = _table("quantizer", "bits")
    for name, bits in allocation.items():
        table.add_row(name, str(bits))
    return table


def _table(first: str, *others: str) -> Table:
    table = compact_table()
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table
