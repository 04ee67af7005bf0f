"""The search beside fixed widths, trained as long, where the run's summary holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from gfb_brevitas.quantities import is_share, quantity, with_unit
from gfb_brevitas.report.budgets import share_text
from gfb_brevitas.report.comparison import (
    Contender,
    binding_budget,
    budgets_of,
    comparison_of,
    use_of,
)
from gfb_brevitas.report.verdict import comparison_in_words
from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.data.table import Cell, DataTable


@dataclass(frozen=True, kw_only=True)
class ComparedBy:
    """The horizontal axis of a comparison.

    Attributes:
        name: Name of the cost.
        unit: Its unit.
        limit: The budget on it, if it is one.
        value: What a model costs.
    """

    name: str
    unit: str
    limit: float | None
    value: Callable[[Contender], float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The rows of ``comparison`` in ``summary.json``, as :class:`gfb_brevitas.report.Contender` writes them.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def models(self) -> tuple[Contender, ...]:
        """In their order; rows that cannot be read are left out."""
        return tuple(comparison_of(self.run.summary or {}))

    @property
    def measured(self) -> str:
        """What the models are compared by: ``"test accuracy"`` unless the rows say something else."""
        return self.models[0].measured if self.models else "test accuracy"

    @property
    def is_share(self) -> bool:
        """Whether it is a share, shown in percent."""
        return is_share(self.measured)

    @cached_property
    def axis(self) -> ComparedBy:
        """The budget that binds; without budgets on which the models differ the size of the weights."""
        name = binding_budget(self.models)
        if name is None:
            return ComparedBy(name="weights", unit="kB", limit=None, value=lambda row: row.weight_kilobytes)
        known = next(use for row in self.models if (use := use_of(row, name)) is not None)

        def value(row: Contender) -> float:
            use = use_of(row, name)
            return float("nan") if use is None else use.value

        return ComparedBy(name=name, unit=known.unit, limit=known.limit, value=value)

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        if len(self.models) > 1:
            return None
        return " ".join(self._words) or "No uniform widths were trained for a comparison."

    def description(self) -> str:
        """The chart in words."""
        axis = self.axis
        over = f", of which {with_unit(axis.limit, axis.unit)} are allowed" if axis.limit else ""
        return " ".join([f"{self.measured.capitalize()} by {axis.name}{over}.", *self._words])

    def table(self) -> DataTable:
        """The chart in numbers."""
        budgets = budgets_of(self.models)
        tested = any(row.test is not None for row in self.models)
        columns = ["model", self.measured, *(["test"] if tested else []), *budgets]
        columns += ["weights in kB", "mean weight bits", "mean activation bits", "bit operations", "epochs"]
        return DataTable(
            columns=tuple(columns),
            rows=tuple(self._row(row, budgets, tested=tested) for row in self.models),
            note="Budgets: share of the limit; ! is above." if budgets else "",
        )

    def _row(self, model: Contender, budgets: list[str], *, tested: bool) -> tuple[Cell, ...]:
        uses = [use_of(model, name) for name in budgets]
        return (
            model.name,
            model.shown,
            *([model.shown_test] if tested else []),
            *("–" if use is None else share_text(use.use, use.feasible) for use in uses),
            quantity(model.weight_kilobytes),
            model.mean_weight_bits,
            model.mean_activation_bits,
            None if model.bit_operations is None else quantity(model.bit_operations),
            model.epochs,
        )

    @property
    def _words(self) -> list[str]:
        return comparison_in_words(self.run.summary or {})
