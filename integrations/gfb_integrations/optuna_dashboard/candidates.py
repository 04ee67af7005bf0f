"""The candidates of a gradient-free step, as its study in the storage holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState


@dataclass(frozen=True, kw_only=True, eq=False)
class StepCandidates:
    """Candidates of a step whose loss is finite.

    Attributes:
        label: The step, in words.
        losses: Shape ``(N,)``.
        excess: Shape ``(N, budgets)``, cost / limit - 1.
    """

    label: str
    losses: NDArray[np.float64]
    excess: NDArray[np.float64]

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Shape ``(N,)``, whether all budgets hold."""
        feasible: NDArray[np.bool_] = np.all(self.excess <= 0, axis=1)
        return feasible

    def front(self, budget: int) -> NDArray[np.int64]:
        """The feasible candidates than which none has both less loss and less of a cost, by cost."""
        order = np.lexsort((self.losses, self.excess[:, budget]))
        order = order[self.feasible[order]]
        least = np.minimum.accumulate(self.losses[order])
        first = np.concatenate([[True], least[1:] < least[:-1]])[: len(order)]
        front: NDArray[np.int64] = order[first]
        return front

    def shown(self, budget: int, most: int) -> NDArray[np.int64]:
        """The front, and at most so many of the other candidates, evenly chosen."""
        others = np.setdiff1d(np.arange(len(self.losses)), self.front(budget))
        stride = max(math.ceil(len(others) / most), 1)
        return np.union1d(self.front(budget), others[::stride])


def read_candidates(study: optuna.Study, budgets: Sequence[str], label: str) -> StepCandidates:
    """Read the trials of a step's study.

    Args:
        study: The study.
        budgets: Names of the budgets.
        label: The step, in words.
    """
    losses, excess = [], []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        loss, constraints = trial.user_attrs.get("loss"), trial.constraints
        # Losses that are not finite are strings.
        if isinstance(loss, int | float) and all(name in constraints for name in budgets):
            losses.append(float(loss))
            excess.append([constraints[name] for name in budgets])
    return StepCandidates(
        label=label,
        losses=np.array(losses, dtype=np.float64),
        excess=np.array(excess, dtype=np.float64).reshape(len(losses), len(budgets)),
    )
