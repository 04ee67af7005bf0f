"""What each layer takes of every budget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gfb_brevitas.search import RecordedLayerCost, RecordedRun
from gfb_integrations.plots.data.table import Cell, DataTable, counted, listed, number_text
from gfb_integrations.plots.data.widths import layer_label, unique

_JOINED = {
    "sum": "the layers' sum",
    "largest": "the largest layer's",
    "longest path": "the sum along the longest path",
}
_LONGEST_HEADING = 38
"""What there is room for on a phone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResourcesPerLayer:
    """What each layer takes of the budgets, at the final allocation.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @property
    def budgets(self) -> tuple[RecordedLayerCost, ...]:
        """The budgets whose cost says what each layer takes."""
        return () if self.run.layer_costs is None else self.run.layer_costs.budgets

    @cached_property
    def drawn(self) -> tuple[RecordedLayerCost, ...]:
        """Those of which some layer takes something."""
        return tuple(budget for budget in self.budgets if any(budget.layers.values()))

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers of all budgets, in forward order."""
        merged: list[str] = []
        for budget in self.budgets:
            place = 0
            for layer in budget.layers:
                if layer not in merged:
                    merged.insert(place, layer)
                place = merged.index(layer) + 1
        return tuple(merged)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Short names of the layers, each different."""
        return unique([layer_label(self.run, layer) for layer in self.layers])

    def values(self, budget: RecordedLayerCost) -> list[float]:
        """What each of :attr:`layers` takes of a budget."""
        return [budget.layers.get(layer, 0.0) for layer in self.layers]

    def largest(self, budget: RecordedLayerCost) -> int:
        """Place of the layer that takes most of a budget."""
        values = self.values(budget)
        return values.index(max(values))

    def heading(self, budget: RecordedLayerCost) -> str:
        """A budget in a few words.

        Example:
            >>> data.heading(budget)  # doctest: +SKIP
            'lut: 7,869 of 7,980 LUTs (99%)'
        """
        share = f" ({budget.value / budget.limit:.0%})" if budget.limit > 0 else ""
        amount = f"{number_text(budget.value)} of {number_text(budget.limit)}"
        unit = "" if budget.unit == budget.name else f" {budget.unit}"
        heading = f"{budget.name}: {amount}{unit}{share}"
        return heading if len(heading) <= _LONGEST_HEADING else heading.removesuffix(share)

    def about(self, budget: RecordedLayerCost, value: float) -> str:
        """What a layer takes, with its shares.

        Example:
            >>> data.about(budget, 2631.0)  # doctest: +SKIP
            '2,631 LUTs: 33.4% of all, 33.0% of the budget'
        """
        shares = []
        if budget.joined_by == "sum" and budget.value > 0:
            shares.append(f"{value / budget.value:.1%} of all")
        if budget.limit > 0:
            shares.append(f"{value / budget.limit:.1%} of the budget")
        return f"{number_text(value)} {budget.unit}" + (f": {', '.join(shares)}" if shares else "")

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        if self.run.summary is None:
            return "What each layer takes of the budgets is written when the run has ended."
        if self.run.layer_costs is None:
            return "The run ended before it was recorded what each layer takes of the budgets."
        if not self.budgets:
            return "No budget says what each layer takes of it."
        return None if self.drawn else "No layer takes anything of the budgets."

    def description(self) -> str:
        """The chart in words."""
        parts = [f"What each of {counted(len(self.layers), 'layer')} takes of the budgets, in forward order."]
        parts += [self._in_words(budget) for budget in self.drawn]
        unused = [budget.name for budget in self.budgets if budget not in self.drawn]
        if unused:
            parts.append(f"No layer takes any {listed(unused)}.")
        parts.append("The layer that takes most is hatched.")
        if any(budget.joined_by == "largest" for budget in self.drawn):
            parts.append("Dashes: the budget, which every layer has to itself.")
        return " ".join(parts)

    def _in_words(self, budget: RecordedLayerCost) -> str:
        most = sorted(budget.layers.items(), key=lambda item: -item[1])
        if budget.joined_by == "sum":
            shares = [f"“{name}” ({value / budget.value:.0%})" for name, value in most[:3] if value]
        else:
            shares = [f"“{name}” ({number_text(value)})" for name, value in most[:3] if value]
        return f"{self.heading(budget)}, {_JOINED[budget.joined_by]}; most in {listed(shares)}."

    def table(self) -> DataTable:
        """The chart in numbers."""
        columns = ("layer", *(_column(budget) for budget in self.budgets))
        rows: list[tuple[Cell, ...]] = [
            (layer, *(_plain(budget.layers.get(layer)) for budget in self.budgets)) for layer in self.layers
        ]
        rows.append(("the cost", *(_plain(budget.value) for budget in self.budgets)))
        rows.append(("at most", *(_plain(budget.limit) for budget in self.budgets)))
        joined = [f"{budget.name}: {_JOINED[budget.joined_by]}" for budget in self.budgets]
        return DataTable(columns=columns, rows=tuple(rows), note=f"The cost of {'; of '.join(joined)}.")


def _column(budget: RecordedLayerCost) -> str:
    return budget.name if budget.unit == budget.name else f"{budget.name} ({budget.unit})"


def _plain(value: float | None) -> Cell:
    return int(value) if value is not None and value == int(value) else value
