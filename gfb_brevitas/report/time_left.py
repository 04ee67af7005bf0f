"""How long a run will go on, from how long its parts took so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gfb_brevitas.search import EpochRecord, GenerationRecord, History, StepRecord


class TimeLeft:
    """Estimates the rest of a run: epochs and gradient-free steps each take as long as they did on average.

    What a step takes is not known before the first one; then it is left out, and the estimate grows. Time
    that the process was not running does not count.

    Args:
        configuration: The run's configuration (``config.json``).
        history: What happened before.
    """

    def __init__(self, configuration: Mapping[str, Any], history: History) -> None:
        search = configuration.get("search", {})
        searched = configuration.get("allocation") is None
        self.rounds = int(search.get("rounds", 0))
        self.steps_per_round = int(search.get("steps_per_round", 0)) if searched else 0
        self.pretrain_epochs = int(search.get("pretrain_epochs", 0))
        self.epochs = self.pretrain_epochs + self.rounds * int(search.get("epochs_per_round", 0))
        self._evaluations_per_step = int(search.get("evaluations_per_step", 0))
        self._epoch_seconds = [record.seconds for record in history.epochs]
        self._step_seconds = [record.seconds for record in history.steps]
        self._evaluated, self._step_so_far = 0, 0.0

    @property
    def steps(self) -> int:
        """Gradient-free steps of the whole run."""
        return self.rounds * self.steps_per_round

    @property
    def done(self) -> int:
        """Epochs and steps that are done."""
        return len(self._epoch_seconds) + len(self._step_seconds)

    @property
    def under_way(self) -> str:
        """Which epoch or gradient-free step comes after those that are done."""
        epochs, steps = len(self._epoch_seconds), len(self._step_seconds)
        if epochs < self.pretrain_epochs:
            return f"pretraining, epoch {epochs + 1}/{self.epochs}"
        per_round = (self.epochs - self.pretrain_epochs) // max(1, self.rounds)
        if per_round:
            ended = (epochs - self.pretrain_epochs) // per_round
        else:
            ended = steps // max(1, self.steps_per_round)
        if ended >= self.rounds:
            return "finishing"
        where, step = f"round {ended + 1}/{self.rounds}", steps - ended * self.steps_per_round
        if step < self.steps_per_round:
            return f"{where}, step {step + 1}/{self.steps_per_round}"
        return f"{where}, epoch {epochs + 1}/{self.epochs}"

    def add(self, record: EpochRecord | StepRecord | GenerationRecord) -> None:
        """Count a record in."""
        if isinstance(record, GenerationRecord):
            begun = record.generation == 1
            self._step_so_far = record.seconds + (0.0 if begun else self._step_so_far)
            self._evaluated = record.evaluations
        elif isinstance(record, StepRecord):
            self._step_seconds.append(record.seconds)
            self._evaluated, self._step_so_far = 0, 0.0
        else:
            self._epoch_seconds.append(record.seconds)

    @property
    def rate(self) -> float:
        """Candidates per second of the step under way."""
        return self._evaluated / max(1e-9, self._step_so_far)

    @property
    def seconds_left(self) -> float | None:
        """The estimate; ``None`` before anything is known."""
        epochs = self.epochs - len(self._epoch_seconds)
        steps = self.steps - len(self._step_seconds)
        step_s = self._seconds_of_step()
        if not self._epoch_seconds and step_s is None:
            return None
        epoch_s = _mean(self._epoch_seconds) or 0.0
        return max(0.0, epochs * epoch_s + steps * (step_s or 0.0) - self._step_so_far)

    def _seconds_of_step(self) -> float | None:
        if self._step_seconds:
            return max(_mean(self._step_seconds) or 0.0, self._step_so_far)
        if self._evaluated:
            return self._step_so_far * max(1.0, self._evaluations_per_step / self._evaluated)
        return None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def clock(seconds: float | None) -> str:
    """A duration for people.

    Example:
        >>> clock(9.4), clock(75), clock(7265), clock(None)
        ('0:09', '1:15', '2:01:05', '-:--')
    """
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
