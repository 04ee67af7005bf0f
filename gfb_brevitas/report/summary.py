"""Tables of a run's ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from gfb_brevitas.quantities import quantity
from gfb_brevitas.report.budgets import ABOVE, use_cell
from gfb_brevitas.report.comparison import comparison_of, comparison_table
from gfb_brevitas.report.names import Name
from gfb_brevitas.report.verdict import comparison_in_words
from gfb_brevitas.terminal import compact_table


def summary_tables(summary: Mapping[str, Any]) -> list[Table | Text]:
    """What the terminal shows: the numbers, the budgets if there are any, the allocation, and a comparison.

    Args:
        summary: As :meth:`gfb_brevitas.search.SearchResult.summary`; further numbers are shown too.

    Raises:
        KeyError: If something is missing.
        TypeError: If something is of another kind than in a summary.
        AttributeError: Likewise.
        ValueError: Likewise.
    """
    tables = [_numbers(summary), _budgets(summary["costs"]), _allocation(summary["allocation"])]
    return [*(table for table in tables if table.row_count), *comparison_parts(summary)]


def comparison_parts(summary: Mapping[str, Any]) -> list[Table | Text]:
    """The comparison of a summary as a table, and in words; nothing where there is none."""
    compared, words = comparison_of(summary), comparison_in_words(summary)
    table = [comparison_table(compared, compared[-1].measured)] if len(compared) > 1 else []
    return [*table, *([Text("\n".join(words))] if words else [])]


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
        value, limit = (quantity(row[name]) for name in ("value", "limit"))
        table.add_row(Name(row["name"]), value, limit, use_cell(row), Name(row["unit"]))
    if not all(row["feasible"] for row in costs):
        table.caption = Text(f"{ABOVE} above the budget")
    return table


def _allocation(allocation: Mapping[str, int]) -> Table:
    table = _table("quantizer", "bits")
    for name, bits in allocation.items():
        table.add_row(Name(name), str(bits))
    return table


def _table(first: str, *others: str) -> Table:
    table = compact_table(caption_justify="left")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    return table
