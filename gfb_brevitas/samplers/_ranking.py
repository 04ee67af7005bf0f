"""From trials to the values that CMA-ES minimises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from gfb_brevitas.samplers._coordinates import Vector

ConstraintPenalty = Literal["ignore", "feasible-first"]

_LARGEST = 1e300  # leaves room for sums


def ranking_values(
    trials: Sequence[FrozenTrial], direction: StudyDirection, constraint_penalty: ConstraintPenalty
) -> Vector:
    """Finite values in the order of the ranks, smaller is better.

    Args:
        trials: P complete trials.
        direction: Of the study.
        constraint_penalty: See :class:`~gfb_brevitas.samplers.CmaSampler`.

    Returns:
        Shape ``(P,)``. Objective values (negated for maximisation) where they are finite and the trial is
        not put behind for its constraints.
    """
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    values = _finite(sign * np.array([trial.value for trial in trials], dtype=np.float64))
    if constraint_penalty == "ignore":
        return values
    violations = np.array([_violation(trial) for trial in trials], dtype=np.float64)
    return _feasible_first(values, violations)


def _finite(values: Vector) -> Vector:
    """Put infinite values just beyond the finite ones."""
    clipped = np.clip(values, -_LARGEST, _LARGEST)
    finite = clipped[np.isfinite(values)]
    best, worst = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    clipped = np.where(values == np.inf, worst + 1 + abs(worst), clipped)
    return np.asarray(np.where(values == -np.inf, best - 1 - abs(best), clipped))


def _violation(trial: FrozenTrial) -> float:
    return sum(max(0.0, value) for value in trial.constraints.values())


def _feasible_first(values: Vector, violations: Vector) -> Vector:
    """Put infeasible trials behind all others, by violation and then by value."""
    infeasible = violations > 0
    order = np.lexsort((values, violations))
    keys = np.stack([violations, values], axis=1)[order]
    steps = np.cumsum(np.concatenate([[0], np.any(np.diff(keys, axis=0) != 0, axis=1)]))
    ranks = np.empty(len(values))
    ranks[order] = steps
    worst = values.max()
    return np.asarray(np.where(infeasible, worst + (1 + abs(worst)) * (1 + ranks), values))
