from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from gfb_brevitas.samplers._ranking import ranking_values

INF = float("inf")


def _trials(
    values: Sequence[float], constraints: Sequence[dict[str, float]] | None = None
) -> list[FrozenTrial]:
    rows = constraints or [{}] * len(values)
    return [optuna.create_trial(value=v, constraints=c) for v, c in zip(values, rows, strict=True)]


def _order(values: np.ndarray) -> list[int]:
    return np.argsort(values, kind="stable").tolist()


def test_finite_values_are_kept() -> None:
    trials = _trials([3.0, -1.0])
    assert ranking_values(trials, StudyDirection.MINIMIZE, "ignore").tolist() == [3.0, -1.0]
    assert ranking_values(trials, StudyDirection.MAXIMIZE, "ignore").tolist() == [-3.0, 1.0]


@pytest.mark.parametrize(
    "values, order",
    [
        ([INF, 1.0, -INF, 2.0], [2, 1, 3, 0]),
        ([INF, 1e308, -INF, -1e308], [2, 3, 1, 0]),
        ([INF, INF], [0, 1]),
        ([INF, -INF], [1, 0]),
    ],
)
def test_infinite_values_become_finite_in_their_place(values: list[float], order: list[int]) -> None:
    ranked = ranking_values(_trials(values), StudyDirection.MINIMIZE, "ignore")
    assert np.all(np.isfinite(ranked))
    assert _order(ranked) == order


def test_feasible_trials_rank_first_then_small_violations_then_values() -> None:
    values = [5.0, 1.0, 0.0, 2.0, -1.0, 9.0]
    constraints = [
        {"a": -1.0},
        {"a": 0.5, "b": 0.5},
        {"a": 0.2, "b": -3.0},
        {"a": 0.0},
        {"a": 0.5, "b": 0.5},
        {},
    ]
    trials = _trials(values, constraints)
    assert _order(ranking_values(trials, StudyDirection.MINIMIZE, "feasible-first")) == [3, 0, 5, 2, 4, 1]
    assert _order(ranking_values(trials, StudyDirection.MAXIMIZE, "feasible-first")) == [5, 0, 3, 2, 1, 4]
    assert _order(ranking_values(trials, StudyDirection.MINIMIZE, "ignore")) == [4, 2, 1, 3, 0, 5]


def test_equal_infeasible_trials_stay_equal() -> None:
    ranked = ranking_values(
        _trials([1.0, 1.0, 0.0], [{"a": 1.0}, {"a": 1.0}, {"a": INF}]),
        StudyDirection.MINIMIZE,
        "feasible-first",
    )
    assert ranked[0] == ranked[1] < ranked[2] < INF
