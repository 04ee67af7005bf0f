"""The Optuna study of a whole run: one trial per round, followed while it runs [ours].

The study has the run's name, so that it stands in front of those of its gradient-free steps. A round's trial
runs while the round does: its intermediate values are the validation metric after every epoch, its parameters
the widths that the round's gradient-free steps chose, its value the metric at the end of the round. What
happens is taken from the records of the run's history, so a resumed run continues the same trials.

Pretraining is round 0. It ends as complete if its allocation keeps the budgets, and as pruned if not: what
the run cannot return is not the best trial anywhere, also where constraints are not looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.search.history import (
    CalibrationRecord,
    EpochRecord,
    GenerationRecord,
    History,
    Record,
    RoundRecord,
    StepRecord,
)
from gfb_brevitas.search.plan import Unit
from gfb_brevitas.search.storages import StudyHead
from gfb_brevitas.search.study import readable, state_constraints
from gfb_brevitas.search.trial_update import ROUND_ATTRIBUTE
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.sensitivity import Allocator

VALUE_MEANS = "validation metric at the end of a round"
"""What the study says of its values. Not as Optuna's metric name, which renames the column of data frames."""


class SearchStudy:
    """Follows a run in a study; has the methods of a :class:`gfb_brevitas.search.Callback` that it needs.

    Args:
        constraints: The budgets, with the search space.
        units: All units of the run.
        name: Name of the study.
        writer: Writes into the user's storage.
        pretrain: The allocation of the pretraining.
        start: The allocation that the search starts from, or that is kept if nothing is searched.
    """

    def __init__(
        self,
        constraints: Constraints,
        units: Sequence[Unit],
        *,
        name: str,
        writer: TrialWriter,
        pretrain: Mapping[str, int],
        start: Mapping[str, int],
    ) -> None:
        self._constraints, self._space = constraints, constraints.space
        self._units, self._name, self._writer = units, name, writer
        self._pretrain, self._start = pretrain, start
        self._distributions = {c.name: IntDistribution(c.min_bits, c.max_bits) for c in self._space.free}
        self._pretraining = [unit for unit in units if unit.kind == "epoch" and not unit.round]
        self._searched = any(unit.kind == "step" for unit in units)
        self._trials: list[FrozenTrial] = []
        self._done = 0

    def begin(self, history: History, attributes: Mapping[str, Any]) -> None:
        """Create the study, or go on with that of the run that is resumed.

        Args:
            history: What happened before.
            attributes: What the study says of the run.

        Raises:
            ConfigurationError: If a study of the name is another run's.
        """
        limits = zip(self._constraints.names, self._constraints.limits.tolist(), strict=True)
        asked = {f"limit_{name}": readable(limit) for name, limit in limits}
        head = StudyHead(direction="maximize", attributes={"value": VALUE_MEANS, **asked, **attributes})
        self._writer.begin(self._name, head)
        time = datetime.now() - timedelta(seconds=history.seconds)
        self._open(time)
        for record in history:
            if not isinstance(record, GenerationRecord):  # which is part of its step
                time += timedelta(seconds=record.seconds)
                self._follow(record, time)
        self._write(self._trials)

    def on_calibrated(self, record: CalibrationRecord) -> None:
        """Clipping parameters were started from data."""
        self._tell(record)

    def on_step(self, record: StepRecord) -> None:
        """A gradient-free step chose an allocation."""
        self._tell(record)

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch was trained and validated."""
        self._tell(record)

    def on_round(self, record: RoundRecord) -> None:
        """A round ended."""
        self._tell(record)

    def stopped(self, error: BaseException) -> None:
        """The run ends before its time; it may be resumed, so that the trial of its round goes on running."""
        trial = self._trials[-1]
        if trial.state == TrialState.RUNNING:
            reason = str(error).split("\n")[0]
            trial.user_attrs["status"] = f"stopped: {type(error).__name__}{f' ({reason})' if reason else ''}"
            self._write([trial])

    def _tell(self, record: Record) -> None:
        current = len(self._trials) - 1
        self._follow(record, datetime.now())
        self._write(self._trials[current:])

    def _write(self, trials: Sequence[FrozenTrial]) -> None:
        self._writer.add(self._name, deepcopy(list(trials)))

    def _follow(self, record: Record, time: datetime) -> None:
        trial, unit = self._trials[-1], self._units[self._done]
        self._done += 1
        if isinstance(record, StepRecord):
            self._follow_step(trial, record)
        elif isinstance(record, EpochRecord):
            _follow_epoch(trial, record)
        elif isinstance(record, RoundRecord):
            trial.user_attrs["best_metric"] = readable(record.best_metric)
        if isinstance(record, EpochRecord | RoundRecord) and self._ends_trial(unit):
            self._finish(trial, record.metric, time)
        else:
            trial.user_attrs["status"] = self._status()

    def _follow_step(self, trial: FrozenTrial, record: StepRecord) -> None:
        attributes, chosen = trial.user_attrs, record.chosen
        attributes["evaluations"] = attributes.get("evaluations", 0) + record.evaluations
        attributes["feasible_share"] = record.feasible_share
        attributes["loss"] = "nan" if chosen is None else readable(chosen.reevaluated_loss)
        if self._units[self._done].kind != "step":  # the last one of the round
            self._state(trial, record.allocation)

    def _may_return(self, trial: FrozenTrial) -> bool:
        """Whether a search returns the trial's allocation: not where budgets leave room for one more bit."""
        searched = any(unit.kind == "step" for unit in self._units)
        bits = self._space.bits(json.loads(trial.user_attrs["bits"]))
        full = not searched or Allocator(self._constraints).is_full(bits)
        return bool(trial.user_attrs["feasible"]) and full

    def _ends_trial(self, unit: Unit) -> bool:
        return unit.kind == "round" or unit in self._pretraining[-1:]

    def _finish(self, trial: FrozenTrial, metric: float, time: datetime) -> None:
        trial.user_attrs["status"] = "done"
        trial.datetime_complete = time
        may_win = trial.user_attrs[ROUND_ATTRIBUTE] or self._may_return(trial)
        trial.state = TrialState.COMPLETE if may_win else TrialState.PRUNED
        if math.isnan(metric):
            trial.state = TrialState.FAIL
        else:
            trial.value = metric
        if self._done < len(self._units):
            self._open(time)

    def _open(self, time: datetime) -> None:
        """Begin the trial of a round."""
        number = len(self._trials)
        round_number = number if self._pretraining else number + 1
        trial = FrozenTrial(
            number=number,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=time,
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={ROUND_ATTRIBUTE: round_number, "status": self._status()},
            system_attrs={},
            intermediate_values={},
        )
        if not round_number or not self._searched:
            self._state(trial, self._start if round_number else self._pretrain)
        self._trials.append(trial)

    def _state(self, trial: FrozenTrial, allocation: Mapping[str, int]) -> None:
        """Say which allocation a round has, and what it costs."""
        bits = self._space.bits(allocation)
        standing = self._constraints.standing(bits[None, :])
        trial.params = {name: int(allocation[name]) for name in self._distributions}
        trial.distributions = dict(self._distributions)
        trial.user_attrs["bits"] = json.dumps(dict(allocation))
        trial.user_attrs["feasible"] = bool(standing.feasible[0])
        for row in self._constraints.report(bits):
            trial.user_attrs[f"cost_{row.name}"] = readable(row.value)
            trial.user_attrs[f"use_{row.name}"] = readable(row.use)
        state_constraints(trial, self._constraints, standing.excess[0])

    def _status(self) -> str:
        unit = self._units[self._done]
        if unit.kind == "calibrate":
            return "calibration"
        if unit.kind == "round":
            return "the end of the round"
        if unit.kind == "epoch":
            return f"epoch {unit.number + 1} of {sum(u.kind == 'epoch' for u in self._units)}"
        steps = sum(u.kind == "step" and u.round == unit.round for u in self._units)
        return f"gradient-free step {unit.number} of {steps}"


def _follow_epoch(trial: FrozenTrial, record: EpochRecord) -> None:
    trial.intermediate_values[record.epoch] = record.metric
    trial.user_attrs["epochs"] = record.epoch
    trial.user_attrs["train_loss"] = readable(record.train_loss)
    trial.user_attrs["learning_rate"] = readable(record.learning_rate)
