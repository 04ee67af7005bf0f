"""Convergence of the gradient-free steps, generation by generation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.search.history import GenerationRecord
from gfb_integrations.plots.data.table import DataTable, counted, number_text

MOST_ROWS = 300


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """The generations of one gradient-free step.

    Attributes:
        name: ``"round.step"``.
        begin: Evaluations of the run before it.
        generations: Its generations.
    """

    name: str
    begin: int
    generations: tuple[GenerationRecord, ...]

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Evaluations of the run after each generation."""
        return tuple(self.begin + record.evaluations for record in self.generations)

    @property
    def end(self) -> int:
        """Evaluations of the run after it."""
        return self.evaluations[-1]

    @property
    def feasible_shares(self) -> tuple[float, ...]:
        """Share of feasible candidates of each generation."""
        before = [0, *(record.evaluations for record in self.generations[:-1])]
        return tuple(
            record.feasible / max(1, record.evaluations - done)
            for record, done in zip(self.generations, before, strict=True)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Convergence:
    """All generations by step.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def steps(self) -> tuple[SearchStep, ...]:
        """The steps in order."""
        groups: dict[tuple[int, int], dict[int, GenerationRecord]] = {}
        for record in self.run.history.generations:
            groups.setdefault((record.round, record.step), {})[record.generation] = record
        steps: list[SearchStep] = []
        for (number, step), generations in groups.items():
            begin = steps[-1].end if steps else 0
            ordered = tuple(generations[key] for key in sorted(generations))
            steps.append(SearchStep(name=f"{number}.{step}", begin=begin, generations=ordered))
        return tuple(steps)

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        return None if self.steps else "No generation of a gradient-free step was recorded."

    def description(self) -> str:
        """The chart in words."""
        generations = sum(len(step.generations) for step in self.steps)
        parts = [
            f"{counted(len(self.steps), 'gradient-free step')} with {counted(generations, 'generation')} and "
            f"{counted(self.steps[-1].end, 'evaluation')}. Every step starts with the weights of its time, "
            "shaded bands tell the steps apart. The objective is the loss and the penalty for what is above "
            "a budget."
        ]
        for step in dict.fromkeys((self.steps[0], self.steps[-1])):
            first, last = step.generations[0], step.generations[-1]
            lowest = _lowest([record.best_value for record in step.generations])
            parts.append(
                f"Step {step.name}: median objective from {number_text(first.median_value)} to "
                f"{number_text(last.median_value)}, best {number_text(lowest)}."
            )
        return " ".join(parts)

    def table(self) -> DataTable:
        """The chart in numbers."""
        rows = [
            (
                step.name,
                record.generation,
                evaluations,
                record.best_value,
                record.median_value,
                record.best_feasible_loss,
                share,
                record.step_size,
                record.non_finite,
            )
            for step in self.steps
            for record, evaluations, share in zip(
                step.generations, step.evaluations, step.feasible_shares, strict=True
            )
        ]
        note = ""
        if len(rows) > MOST_ROWS:
            last = {(step.name, step.generations[-1].generation) for step in self.steps}
            rows = [row for row in rows if (row[0], row[1]) in last]
            note = "The last generation of every step. All are in history.jsonl."
        columns = ("step", "generation", "evaluations", "best objective", "median objective")
        more = ("best feasible loss", "feasible share", "step size", "not finite")
        return DataTable(columns=(*columns, *more), rows=tuple(rows), note=note)


def _lowest(values: list[float]) -> float:
    return min((value for value in values if math.isfinite(value)), default=math.nan)
