from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import (
    ActivationMemory,
    BitOperations,
    CallableCost,
    MeanActivationBits,
    WeightSize,
)
from gfb_brevitas.profile import ModelProfile, Operand, Product
from gfb_brevitas.rules import Fix, Range, Tie
from gfb_brevitas.sensitivity import Allocator, allocate
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import profiles, quantizer, two_layers
from tests.core.search.small_problem import searchable


def problem() -> Constraints:
    model = searchable()
    return Constraints(model.space, [Budget(cost=WeightSize(), beta=0.9, uniform_bits=4)])


def increases(weights: list[float]) -> np.ndarray:
    return np.array(weights)[:, None] * 4.0 ** -np.arange(9)[None, :]


def layers(count: int, seed: int) -> ModelProfile:
    """Layers in a row, a weight and an activation quantizer each, of very different sizes."""
    sizes = np.exp(np.random.default_rng(seed).uniform(2, 7, size=(count, 3))).astype(int).tolist()
    quantizers, products = [], []
    for layer, (weights, activations, macs) in enumerate(sizes):
        names = f"{layer}.act", f"{layer}.weight"
        quantizers.append(quantizer(names[0], "activation", activations))
        quantizers.append(quantizer(names[1], "weight", weights))
        left, right = (Operand(quantizers=(name,)) for name in names)
        products.append(Product(layer=str(layer), macs=macs, left=left, right=right))
    return ModelProfile(quantizers=tuple(quantizers), products=tuple(products))


def random_increases(quantizers: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = np.exp(0.3 * rng.standard_normal((quantizers, 9)) + 2 * rng.standard_normal((quantizers, 1)))
    table = noise * 4.0 ** -np.arange(9)
    falling = np.maximum.accumulate((table - table[:, -1:]).clip(0)[:, ::-1], axis=1)[:, ::-1]
    return np.ascontiguousarray(falling)


def total(table: np.ndarray, bits: np.ndarray) -> float:
    return float(table[np.arange(len(bits)), bits].sum())


def require_full(constraints: Constraints, bits: np.ndarray) -> None:
    """Feasible, in the space, and with every single coordinate raised by a bit no longer feasible."""
    space = constraints.space
    space.check(space.allocation(bits))
    assert constraints.feasible(bits[None])[0]
    for coordinate in space.free:
        members = [space.profile.column(name) for name in coordinate.quantizers]
        if bits[members[0]] < coordinate.max_bits:
            raised = bits.copy()
            raised[members] += 1
            assert not constraints.feasible(raised[None])[0], coordinate.name


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


def exact(constraints: Constraints, table: np.ndarray) -> float:
    """The smallest sum of increases under budgets that are sums over quantizers, by integer programming."""
    count, budgets = len(table), len(constraints)
    low = np.ones((1, count), dtype=np.int64)
    base = constraints.costs(low)[0]
    prices = np.zeros((budgets, count, 8))
    for k, width in product(range(count), range(1, 9)):
        row = low.copy()
        row[0, k] = width
        prices[:, k, width - 1] = constraints.costs(row)[0] - base
    one_width = np.kron(np.eye(count), np.ones(8))
    found = milp(
        table[:, 1:].ravel(),
        integrality=np.ones(count * 8),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(prices.reshape(budgets, -1), ub=constraints.limits - base),
            LinearConstraint(one_width, lb=1, ub=1),
        ],
    )
    return float(found.fun)


@pytest.mark.parametrize("seed", range(6))
def test_separable_budgets_are_used_almost_as_well_as_is_possible(seed: int) -> None:
    space = SearchSpace(layers(12, seed))
    both = [
        Budget(cost=WeightSize(), beta=0.9, uniform_bits=3),
        Budget(cost=MeanActivationBits(), beta=0.98, uniform_bits=3),
    ]
    constraints, table = Constraints(space, both), random_increases(24, seed)
    bits = allocate(constraints, table)
    require_full(constraints, bits)
    assert total(table, bits) <= 1.03 * exact(constraints, table)


@pytest.mark.parametrize("seed", range(6))
def test_bit_operations_are_used_almost_as_well_as_is_possible(seed: int) -> None:
    space = SearchSpace(layers(2, seed), [Range("*", 1, 6)])
    constraints = Constraints(space, [Budget(cost=BitOperations(), beta=0.9, uniform_bits=3)])
    table = random_increases(4, seed)
    every = np.array(list(product(range(1, 7), repeat=4)))
    every = every[constraints.feasible(every)]
    bits = allocate(constraints, table)
    require_full(constraints, bits)
    assert total(table, bits) <= 1.25 * table[np.arange(4), every].sum(axis=1).min()


@pytest.mark.parametrize("cost", [WeightSize(), BitOperations(), ActivationMemory(total="largest")])
def test_work_grows_with_the_pairs_of_quantizer_and_width(cost: object) -> None:
    rows = {}
    for count in (20, 80):
        constraints = Constraints(SearchSpace(layers(count, 0)), [Budget(cost=cost, uniform_bits=3)])
        seen = []
        bound = constraints._bound[0]
        constraints._bound[0] = lambda bits, bound=bound, seen=seen: seen.append(len(bits)) or bound(bits)
        Allocator(constraints).allocate(random_increases(2 * count, 0))
        rows[count] = sum(seen)
        assert max(seen) <= 2 * count * 8
    assert rows[80] <= 8 * rows[20]  # four times the pairs


def fast_at(*widths: int) -> Budget:
    """A budget on a cost that is not monotone: 1 per quantizer at one of these widths, 10 at others."""
    cost = CallableCost(
        name="hardware",
        unit="us",
        function=lambda bits, profile: np.where(np.isin(bits, widths), 1.0, 10.0).sum(axis=1),
        vectorized=True,
    )
    return Budget(cost=cost, limit=22)


BUDGETS = {
    "none": [],
    "weights": [Budget(cost=WeightSize(), uniform_bits=3)],
    "both": [
        Budget(cost=WeightSize(), beta=0.9, uniform_bits=3),
        Budget(cost=MeanActivationBits(), beta=0.98, uniform_bits=3),
    ],
    "bit operations": [Budget(cost=BitOperations(), uniform_bits=4)],
    "largest": [Budget(cost=ActivationMemory(total="largest"), beta=0.9, uniform_bits=3)],
    "not monotone": [fast_at(2, 5), Budget(cost=WeightSize(), uniform_bits=5)],
}
RULES = {
    "free": (),
    "fixed": (Fix("conv.weight", 8),),
    "range": (Range("*", 2, 5),),
    "tied": (Tie(by=lambda info: info.name.split(".")[0]),),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("budgets", BUDGETS)
def test_no_single_width_of_what_is_filled_can_be_raised(budgets: str, rules: str) -> None:
    constraints = Constraints(SearchSpace(two_layers(), RULES[rules]), BUDGETS[budgets])
    allocator, rng = Allocator(constraints), np.random.default_rng(0)
    for seed in range(5):
        space = constraints.space
        low, high = (space.bits(end())[None] for end in (space.smallest, space.largest))
        start = constraints.repair(space.nearest(rng.integers(low, high + 1)[0]))
        for table in (None, random_increases(4, seed)):
            filled = allocator.fill(start, table)
            require_full(constraints, filled)
            assert (filled >= start).all() and allocator.is_full(filled)
            np.testing.assert_array_equal(filled, Allocator(constraints).fill(start, table))
        require_full(constraints, allocator.allocate(random_increases(4, seed), exchange=bool(seed % 2)))


@given(profile=profiles(), seed=st.integers(0, 1000), beta=st.floats(0.5, 1.5))
def test_of_any_profile_what_is_filled_is_full(profile: ModelProfile, seed: int, beta: float) -> None:
    space = SearchSpace(profile)
    ends = np.stack([space.bits(space.smallest()), space.bits(space.largest())])
    weights = np.random.default_rng(seed).uniform(0, 1, len(profile))
    cost = CallableCost(
        name="any", unit="", function=lambda bits, profile: bits @ weights + 1, vectorized=True
    )
    limit = float(np.clip(beta * 0.5 * (ends @ weights + 1).sum(), (ends[0] @ weights + 1), None))
    constraints = Constraints(space, [Budget(cost=cost, limit=limit)])
    require_full(constraints, Allocator(constraints).fill(ends[0]))


def test_what_is_full_stays_as_it_is_and_what_is_not_is_told() -> None:
    constraints = problem()
    allocator = Allocator(constraints)
    full = allocator.allocate(increases([1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(allocator.fill(full), full)
    lowered = full.copy()
    lowered[1] -= 1
    assert allocator.is_full(full) and not allocator.is_full(lowered)
    np.testing.assert_array_equal(allocator.fill(lowered), full)
