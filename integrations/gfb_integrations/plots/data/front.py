"""The front of loss and cost: everything that was evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.search import RecordedRun, StepRecord
from gfb_brevitas.space import Vector
from gfb_integrations.plots.data.table import DataTable, counted, listed, number_text

MOST_POINTS = 3000
"""More points of a panel than that cannot be told apart and make pages slow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CostAxis:
    """One cost that losses are drawn against.

    Attributes:
        name: Name of the cost.
        unit: Its unit.
        costs: Shape ``(points,)``.
        limit: The budget, if it is one.
        at_uniform_bits: The cost at uniform widths.
    """

    name: str
    unit: str
    costs: Vector
    limit: float | None
    at_uniform_bits: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class ChosenPoint:
    """What a step chose.

    Attributes:
        step: ``"round.step"``.
        costs: Its costs by name.
        loss: Its loss on super-batches; where it was not sampled, that of the re-evaluation.
    """

    step: str
    costs: Mapping[str, float]
    loss: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """All candidates with a finite loss, and which of them no other one beats.

    A loss belongs to the weights and the super-batch that it was computed with; losses of different steps
    are not of the same weights.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def losses(self) -> Vector:
        """Shape ``(points,)``, finite."""
        return self._gathered([step.losses for step in self.run.candidates])[self._finite]

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Number of each point's step, from 0, in the order of the steps."""
        sizes = [len(step.losses) for step in self.run.candidates]
        return np.repeat(np.arange(len(sizes)), sizes)[self._finite]

    @property
    def step_names(self) -> tuple[str, ...]:
        """``"round.step"`` of each step."""
        return tuple(f"{step.round}.{step.step}" for step in self.run.candidates)

    @cached_property
    def bits(self) -> NDArray[np.int64]:
        """Shape ``(points, quantizers)``."""
        found = [step.bits for step in self.run.candidates]
        gathered = np.concatenate(found) if found else np.zeros((0, len(self.run.quantizers)), dtype=np.int64)
        return gathered[self._finite]

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether a point keeps all budgets."""
        limits = np.array([budget.limit for budget in self.run.budgets])
        tolerance = 1e-9 * np.abs(limits)
        kept: NDArray[np.bool_] = (self._budget_costs <= limits + tolerance).all(axis=1)
        return kept

    @cached_property
    def axes(self) -> tuple[CostAxis, ...]:
        """One for every budget; without budgets the size of all weights, or else of all activations."""
        axes = tuple(
            CostAxis(
                name=budget.name,
                unit=budget.unit,
                costs=self._budget_costs[:, place],
                limit=budget.limit,
                at_uniform_bits=dict(budget.at_uniform_bits),
            )
            for place, budget in enumerate(self.run.budgets)
        )
        return tuple(filter(_varies, axes)) or (self._size_axis(),)

    @property
    def constant(self) -> tuple[str, ...]:
        """Budgets whose cost was the same for every candidate: there is nothing to draw a loss against."""
        drawn = {axis.name for axis in self.axes}
        return tuple(budget.name for budget in self.run.budgets if budget.name not in drawn)

    def thinned(self, axis: CostAxis) -> NDArray[np.int64]:
        """Places of the points to draw: all, or those of the front and a sample of the others."""
        if len(self.losses) <= MOST_POINTS:
            return np.arange(len(self.losses))
        sample = np.random.default_rng(0).choice(len(self.losses), MOST_POINTS, replace=False)
        return np.unique(np.concatenate([sample, self.front(axis)]))

    def front(self, axis: CostAxis) -> NDArray[np.int64]:
        """Places of the points that have a smaller loss than every point that costs as much or less."""
        order = np.lexsort((self.losses, axis.costs))
        order = order[np.isfinite(axis.costs[order])]
        best = np.minimum.accumulate(self.losses[order])
        first = np.r_[True, best[1:] < best[:-1]][: len(order)]
        places: NDArray[np.int64] = order[first]
        return places

    @cached_property
    def chosen(self) -> tuple[ChosenPoint, ...]:
        """What each step chose."""
        return tuple(self._chosen(step) for step in self.run.history.steps if step.candidates)

    def _chosen(self, step: StepRecord) -> ChosenPoint:
        candidate = step.candidates[0]
        loss = candidate.super_batch_loss
        costs = {str(row["name"]): float(row["value"]) for row in step.costs}
        if not any(axis.limit is not None for axis in self.axes):
            costs[self.axes[0].name] = float(np.array(candidate.bits) @ self._sizes[1])
        name = f"{step.round}.{step.step}"
        return ChosenPoint(
            step=name, costs=costs, loss=loss if math.isfinite(loss) else candidate.reevaluated_loss
        )

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        if not self.run.candidates:
            return "No candidate was evaluated."
        return None if len(self.losses) else "No candidate had a finite loss."

    def description(self) -> str:
        """The chart in words."""
        total = sum(len(step.losses) for step in self.run.candidates)
        parts = [f"{counted(total, 'candidate')} of {counted(len(self.run.candidates), 'step')}"]
        if self.run.budgets:
            parts[0] += f", {int(np.sum(self.feasible)):,} of them within every budget"
        parts[0] += "."
        if total > len(self.losses):
            parts.append(f"{total - len(self.losses):,} of them had no finite loss and are left out.")
        kept = self.losses[self.feasible]
        if len(kept):
            parts.append(f"The smallest loss within the budgets is {number_text(float(kept.min()))}.")
        parts.append(
            "A loss is that of a candidate's super-batch with the weights of its step; those of different "
            "steps "
            "are of different weights. The line is the front: nothing that costs as much or less had a "
            "smaller loss."
        )
        if self.constant:
            parts.append(f"Not drawn, as it was the same for every candidate: {listed(list(self.constant))}.")
        if len(self.losses) > MOST_POINTS:
            parts.append(f"Drawn are the front and {MOST_POINTS:,} others, taken at random.")
        return " ".join(parts)

    def table(self) -> DataTable:
        """The fronts in numbers."""
        rows = [
            (
                axis.name,
                number_text(float(axis.costs[place])),
                axis.unit,
                float(self.losses[place]),
                self.step_names[self.steps[place]],
                bool(self.feasible[place]),
            )
            for axis in self.axes
            for place in self.front(axis)
        ]
        return DataTable(
            columns=("cost", "value", "unit", "loss", "step", "within budgets"),
            rows=tuple(rows),
            note="The fronts. All candidates are in the folder generations.",
        )

    @cached_property
    def _finite(self) -> NDArray[np.bool_]:
        return np.isfinite(self._gathered([step.losses for step in self.run.candidates]))

    @cached_property
    def _budget_costs(self) -> Vector:
        found = [step.costs for step in self.run.candidates]
        gathered = np.concatenate(found) if found else np.zeros((0, len(self.run.budgets)))
        return gathered[self._finite]

    @cached_property
    def _sizes(self) -> tuple[str, Vector]:
        kind = "weight" if any(q.kind == "weight" for q in self.run.quantizers) else "activation"
        sizes = [q.elements if q.kind == kind else 0 for q in self.run.quantizers]
        return kind, np.array(sizes, dtype=np.float64)

    def _size_axis(self) -> CostAxis:
        kind, sizes = self._sizes
        widths = range(
            min(q.min_bits for q in self.run.quantizers), max(q.max_bits for q in self.run.quantizers) + 1
        )
        limits = np.array([(q.min_bits, q.max_bits) for q in self.run.quantizers])
        uniform = {width: float(np.clip(width, limits[:, 0], limits[:, 1]) @ sizes) for width in widths}
        return CostAxis(
            name=f"{kind}_bits",
            unit="bits",
            costs=self.bits @ sizes,
            limit=None,
            at_uniform_bits=uniform,
        )

    @staticmethod
    def _gathered(parts: list[Vector]) -> Vector:
        return np.concatenate(parts) if parts else np.zeros(0)


def _varies(axis: CostAxis) -> bool:
    finite = axis.costs[np.isfinite(axis.costs)]
    return bool(finite.size and finite.max() > finite.min())
