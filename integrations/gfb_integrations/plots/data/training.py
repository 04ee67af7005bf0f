"""Training curves with the gradient-free steps in between, in the order in which things happened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.search.history import EpochRecord, GenerationRecord, StepRecord
from gfb_integrations.plots.data.table import DataTable, counted, number_text


@dataclass(frozen=True, kw_only=True)
class TrainedEpoch:
    """An epoch and where it stands on the axis, which every epoch and every step goes along by 1.

    Attributes:
        position: Where it ends.
        record: The epoch.
    """

    position: int
    record: EpochRecord


@dataclass(frozen=True, kw_only=True)
class ShadedStep:
    """A gradient-free step: from ``begin`` to ``begin + 1``.

    Attributes:
        name: ``"round.step"``.
        begin: Where it begins.
        losses: Best feasible loss of each generation, ``(position, loss)``.
    """

    name: str
    begin: int
    losses: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Epochs and steps on one axis.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def _timeline(self) -> tuple[tuple[TrainedEpoch, ...], tuple[ShadedStep, ...]]:
        epochs: list[TrainedEpoch] = []
        steps: list[ShadedStep] = []
        pending: dict[int, GenerationRecord] = {}
        position = 0
        for record in self.run.history:
            if isinstance(record, GenerationRecord):
                pending[record.generation] = record
            elif isinstance(record, StepRecord):
                steps.append(_shaded(f"{record.round}.{record.step}", position, pending))
                position, pending = position + 1, {}
            elif isinstance(record, EpochRecord):
                position += 1
                epochs.append(TrainedEpoch(position=position, record=record))
        if pending:
            last = next(iter(pending.values()))
            steps.append(_shaded(f"{last.round}.{last.step}", position, pending))
        return tuple(epochs), tuple(steps)

    @property
    def epochs(self) -> tuple[TrainedEpoch, ...]:
        """The epochs in order."""
        return self._timeline[0]

    @property
    def steps(self) -> tuple[ShadedStep, ...]:
        """The gradient-free steps in order."""
        return self._timeline[1]

    @property
    def end(self) -> int:
        """The end of the axis."""
        ends = [epoch.position for epoch in self.epochs[-1:]] + [step.begin + 1 for step in self.steps[-1:]]
        return max(ends, default=0)

    @property
    def best(self) -> TrainedEpoch | None:
        """The epoch whose state was the best."""
        marked = [epoch for epoch in self.epochs if epoch.record.best]
        return marked[-1] if marked else None

    def ticks(self, most: int = 9) -> tuple[TrainedEpoch, ...]:
        """Epochs with round numbers, at most so many, for an axis."""
        sizes = (size * 10**power for power in range(12) for size in (1, 2, 5))
        every = next(size for size in sizes if self.epochs[-1].record.epoch / size <= most)
        return tuple(epoch for epoch in self.epochs if epoch.record.epoch % every == 0)

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        return None if self.epochs else "No epoch was trained."

    def description(self) -> str:
        """The chart in words."""
        first, last = self.epochs[0].record, self.epochs[-1].record
        pretraining = sum(epoch.record.round == 0 for epoch in self.epochs)
        parts = [
            f"{counted(len(self.epochs), 'epoch')}"
            + (f", {pretraining:,} of them before the first round" if pretraining else "")
            + f", and {counted(len(self.steps), 'gradient-free step')} (shaded; the weights stand still)."
        ]
        parts.append(
            f"Training loss from {number_text(first.train_loss)} to {number_text(last.train_loss)}, "
            f"validation metric from {number_text(first.metric)} to {number_text(last.metric)}."
        )
        if self.best is not None:
            record = self.best.record
            parts.append(
                f"Best within the budgets: {number_text(record.metric)} after epoch {record.epoch:,}."
            )
        return " ".join(parts)

    def table(self) -> DataTable:
        """The chart in numbers."""
        rows = tuple(
            (
                record.epoch,
                record.round or "before",
                record.train_loss,
                record.metric,
                record.learning_rate,
                record.feasible,
                record.best,
            )
            for record in (epoch.record for epoch in self.epochs)
        )
        columns = ("epoch", "round", "training loss", "validation metric", "learning rate")
        return DataTable(columns=(*columns, "within budgets", "best so far"), rows=rows)


def _shaded(name: str, begin: int, generations: dict[int, GenerationRecord]) -> ShadedStep:
    records = [generations[number] for number in sorted(generations)]
    losses = tuple(
        (begin + (place + 1) / len(records), record.best_feasible_loss)
        for place, record in enumerate(records)
        if math.isfinite(record.best_feasible_loss)
    )
    return ShadedStep(name=name, begin=begin, losses=losses)
