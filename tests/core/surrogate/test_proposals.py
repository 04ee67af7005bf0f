from __future__ import annotations

import numpy as np

from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import WeightSize
from gfb_brevitas.rules import Fix
from gfb_brevitas.space import Bits, Vector
from gfb_brevitas.surrogate import Proposals
from tests.core.search.small_problem import searchable


def problem(*rules: Fix) -> Constraints:
    model = searchable(rules=rules)
    return Constraints(model.space, [Budget(cost=WeightSize(), beta=0.9, uniform_bits=4, rho=20.0)])


def losses(bits: Bits) -> Vector:
    total: Vector = (np.array([4.0, 1.0, 0.2]) * 2.0**-bits).sum(axis=1)
    return total


def started(constraints: Constraints, count: int = 12) -> Proposals:
    proposals = Proposals(constraints)
    bits = constraints.space.decode(np.random.default_rng(0).uniform(0, 3, (count, len(constraints.space))))
    proposals.add(bits, losses(bits), 0)
    return proposals


def test_a_few_proposals_find_the_best_of_all() -> None:
    constraints = problem()
    every = np.stack(np.meshgrid(*[np.arange(1, 9)] * 3), axis=-1).reshape(-1, 3)
    best = (losses(every) + constraints.penalty(every)).min()
    proposals, found = started(constraints), np.inf
    for generation in range(1, 7):
        bits = proposals.propose(6, np.random.default_rng(generation))
        found = min(found, float((losses(bits) + constraints.penalty(bits)).min()))
        proposals.add(bits, losses(bits), generation)
    assert found <= 1.02 * best


def test_what_is_proposed_is_new_and_each_once() -> None:
    proposals = started(problem())
    bits = proposals.propose(8, np.random.default_rng(1))
    assert len(np.unique(bits, axis=0)) == len(bits) > 0
    assert len(proposals.unknown(bits)) == len(bits)
    proposals.add(bits, losses(bits), 1)
    assert len(proposals.unknown(bits)) == 0


def test_cost_alone_rules_candidates_out() -> None:
    constraints = problem()
    bits = started(constraints).propose(8, np.random.default_rng(1))
    assert constraints.feasible(bits).mean() > 0.8


def test_fixed_widths_stay() -> None:
    constraints = problem(Fix("4.*", 3))
    bits = started(constraints).propose(8, np.random.default_rng(1))
    assert (bits[:, 2] == 3).all()


def test_equal_generators_propose_equal_candidates() -> None:
    first, second = (started(problem()).propose(6, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_many_evaluations_do_not_stop_it() -> None:
    constraints = problem()
    proposals = started(constraints, 400)
    assert len(proposals.propose(4, np.random.default_rng(1)))
