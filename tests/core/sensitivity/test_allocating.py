from __future__ import annotations

from itertools import product

import numpy as np

from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import WeightSize
from gfb_brevitas.sensitivity import allocate
from tests.core.search.small_problem import searchable


def problem() -> Constraints:
    model = searchable()
    return Constraints(model.space, [Budget(cost=WeightSize(), beta=0.9, uniform_bits=4)])


def increases(weights: list[float]) -> np.ndarray:
    return np.array(weights)[:, None] * 4.0 ** -np.arange(9)[None, :]


def test_bits_go_where_they_save_most() -> None:
    constraints = problem()
    first = allocate(constraints, increases([100.0, 1.0, 1.0]))
    last = allocate(constraints, increases([1.0, 1.0, 100.0]))
    assert first[0] > last[0] and last[2] > first[2]
    assert first[1] == last[1] == 8  # costs nothing under this budget
    assert constraints.feasible(np.array([first, last])).all()


def test_exchanges_come_close_to_the_best_of_all() -> None:
    constraints = problem()
    every = np.array(list(product(range(1, 9), repeat=3)))
    every = every[constraints.feasible(every)]
    rng = np.random.default_rng(0)
    for _ in range(10):
        table = increases(np.exp(2 * rng.standard_normal(3)).tolist())
        totals = table[np.arange(3), every].sum(axis=1)
        found = allocate(constraints, table)
        assert table[np.arange(3), found].sum() <= 1.05 * totals.min()


def test_without_budgets_everything_is_at_its_largest_width() -> None:
    model = searchable()
    assert allocate(Constraints(model.space), increases([1.0, 1.0, 1.0])).tolist() == [8, 8, 8]
