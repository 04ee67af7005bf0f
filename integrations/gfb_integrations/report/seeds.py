"""Runs of several seeds, told together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gfb_brevitas.report.budgets import share_text
from gfb_brevitas.report.comparison import Contender, budgets_of, use_of
from gfb_brevitas.report.runs import folded_comparison, run_rows
from gfb_brevitas.report.verdict import verdict
from gfb_brevitas.search import RecordedSeeds
from gfb_integrations.plots.data.table import Cell, DataTable, number_text


@dataclass(frozen=True, kw_only=True)
class SeedsTable:
    """What there is to say of runs of several seeds.

    Attributes:
        seeds: The runs.
    """

    seeds: RecordedSeeds

    @property
    def sentences(self) -> list[str]:
        """The result in words, and which run the page draws."""
        row = run_rows([self.seeds])[0]
        count, middle = len(self.seeds.runs), self.seeds.middle.path.name
        said = f"Over {count} seeds the validation metric is {_around(row, 'metric')}"
        if row["test_metric"] is not None:
            said += f", the test metric {_around(row, 'test_metric')}"
        compared = folded_comparison(self.seeds.runs)
        words = verdict(compared) if len(compared) > 1 else []
        return [
            f"{said} (mean and standard deviation).",
            *words,
            f"All that follows is of {middle}, the run with the middle metric.",
        ]

    def table(self) -> DataTable:
        """A row for every seed."""
        rows = run_rows(self.seeds.runs)
        budgets = list(dict.fromkeys(cost["name"] for row in rows for cost in row["costs"]))
        columns = ("seed", "state", "validation metric", "test metric", *budgets, "epochs")
        return DataTable(columns=columns, rows=tuple(_cells(row, budgets) for row in rows), note=_NOTE)

    def comparison(self) -> DataTable | None:
        """Means of the searches and of what they are compared with; ``None`` where there is nothing."""
        rows = folded_comparison(self.seeds.runs)
        if len(rows) < 2:
            return None
        budgets = budgets_of(rows)
        columns = ("model", rows[0].measured, "test", *budgets)
        return DataTable(columns=columns, rows=tuple(_mean_cells(row, budgets) for row in rows), note=_NOTE)


_NOTE = "Budgets: share of the limit, the largest where there are several runs; ! is above."


def _cells(row: dict[str, Any], budgets: list[str]) -> tuple[Cell, ...]:
    uses = {cost["name"]: share_text(cost["use"], cost["feasible"]) for cost in row["costs"]}
    metrics = (number_text(row["metric"]), number_text(row["test_metric"]))
    return (
        str(row["seed"]),
        row["state"],
        *metrics,
        *(uses.get(name, "–") for name in budgets),
        row["epochs"],
    )


def _mean_cells(row: Contender, budgets: list[str]) -> tuple[Cell, ...]:
    uses = (use_of(row, name) for name in budgets)
    shares = ("–" if use is None else share_text(use.use, use.feasible) for use in uses)
    return (row.name, row.shown, row.shown_test, *shares)


def _around(row: dict[str, Any], name: str) -> str:
    return f"{number_text(row[name])} ± {number_text(row[f'{name}_spread'], 2)}"
