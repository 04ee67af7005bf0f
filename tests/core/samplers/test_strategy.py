from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from gfb_brevitas.samplers._coordinates import Coordinates, Vector
from gfb_brevitas.samplers._state import CmaState, initial_state
from gfb_brevitas.samplers._strategy import Strategy, default_population_size


def _strategy(n: int = 5, start: float = 1.0, step_size: float | None = 0.4) -> Strategy:
    coordinates = Coordinates({f"x{i}": FloatDistribution(0.0, 3.0) for i in range(n)})
    state = initial_state(coordinates, np.full(n, start), step_size)
    return Strategy(coordinates, state, default_population_size(n))


def _advance(strategy: Strategy, rng: np.random.Generator, target: Vector, updates: int) -> None:
    for _ in range(updates):
        normals = rng.standard_normal((strategy.population_size, strategy.dimension))
        points = strategy.coordinates.fold(np.array([strategy.draw(z) for z in normals]))
        values = np.sum(np.arange(1, len(target) + 1) * (points - target) ** 2, axis=1)
        strategy.update(normals, np.empty((0, len(target))), values)


@pytest.mark.parametrize("n, size", [(1, 4), (2, 6), (10, 10), (44, 15)])
def test_default_population_size(n: int, size: int) -> None:
    assert default_population_size(n) == size


def test_starts_with_exactly_the_given_distribution() -> None:
    strategy = _strategy()
    np.testing.assert_allclose(strategy.draw(np.zeros(5)), np.full(5, 1.0), rtol=1e-14)
    step = strategy.draw(np.eye(5)[2]) - strategy.draw(np.zeros(5))
    np.testing.assert_allclose(step, 0.4 * np.eye(5)[2], atol=1e-12)


def test_default_step_is_a_sixth_of_each_range() -> None:
    coordinates = Coordinates({"a": FloatDistribution(0, 3), "b": FloatDistribution(1e-4, 1.0, log=True)})
    strategy = Strategy(coordinates, initial_state(coordinates, coordinates.lower + 0.1, None), 6)
    steps = strategy.draw(np.ones(2)) - strategy.draw(np.zeros(2))
    np.testing.assert_allclose(steps, [0.5, np.log(1e4) / 6], rtol=1e-9)


def test_a_wide_first_step_is_not_cut() -> None:
    assert _strategy(step_size=2.5).state().standard_deviations["x0"] == pytest.approx(2.5)


def test_a_state_with_a_large_step_size_and_small_covariance_is_not_cut() -> None:
    coordinates = Coordinates({"a": FloatDistribution(0.0, 3.0), "b": FloatDistribution(0.0, 3.0)})
    state = replace(
        initial_state(coordinates, np.array([1.0, 2.0]), 2.0), covariance=np.array([[0.01, 0.0], [0.0, 0.04]])
    )
    assert Strategy(coordinates, state, 6).state().standard_deviations == pytest.approx({"a": 0.2, "b": 0.4})


def test_state_continues_as_the_strategy_itself() -> None:
    target = np.linspace(0.4, 2.6, 5)
    whole = _strategy()
    _advance(whole, np.random.default_rng(1), target, 12)
    continued = Strategy(
        whole.coordinates, CmaState.from_json(whole.state().to_json()), whole.population_size
    )
    _advance(whole, np.random.default_rng(2), target, 12)
    _advance(continued, np.random.default_rng(2), target, 12)
    for name in ("mean", "covariance", "covariance_path", "step_size_path"):
        np.testing.assert_allclose(
            getattr(continued.state(), name), getattr(whole.state(), name), rtol=1e-6, atol=1e-12
        )
    assert continued.state().step_size == pytest.approx(whole.state().step_size)
    assert continued.state().evaluations == whole.state().evaluations == 24 * whole.population_size
    assert continued.generation == whole.generation == 24


def test_state_of_a_mirrored_mean_is_the_same_distribution_inside_the_box() -> None:
    strategy = _strategy(n=2, start=2.95)
    _advance(strategy, np.random.default_rng(0), np.array([3.0, 1.0]), 6)
    strategy._es.mean[0] = 3.15 + 0.3  # as a random walk across the bound would put it
    twin = Strategy(strategy.coordinates, strategy.state(), strategy.population_size)
    assert twin.mean[0] == pytest.approx(3.15 - 0.3)
    z = np.random.default_rng(3).standard_normal((200, 2))
    ours = strategy.coordinates.fold(np.array([strategy.draw(row) for row in z]))
    mirrored = strategy.coordinates.fold(np.array([twin.draw(row) for row in z * [-1, 1]]))
    np.testing.assert_allclose(mirrored, ours, atol=1e-9)


def test_far_injected_points_do_not_blow_up_the_distribution() -> None:
    strategy = _strategy(step_size=0.01)
    normals = np.random.default_rng(0).standard_normal((strategy.population_size, 5))
    far = np.full((3, 5), 2.9)
    strategy.update(normals, far, np.concatenate([[-9.0, -8.0, -7.0], np.arange(len(normals))]))
    state = strategy.state()
    assert np.all(state.mean > 1.0)  # moved towards the good points
    assert np.all(state.mean < 1.2)
    assert max(state.standard_deviations.values()) < 0.05
    assert state.evaluations == strategy.population_size + 3


def test_bad_injected_points_do_not_shrink_the_covariance() -> None:
    rng = np.random.default_rng(0)
    strategies = [_strategy(), _strategy()]
    normals = rng.standard_normal((8, 5))
    bad = strategies[0].mean + 0.4 * np.array([[3.0, 0, 0, 0, 0]])
    strategies[0].update(normals, bad, np.concatenate([[99.0], np.arange(8.0)]))
    drawn = np.vstack([[[3.0, 0, 0, 0, 0]], normals])
    strategies[1].update(drawn, np.empty((0, 5)), np.concatenate([[99.0], np.arange(8.0)]))
    assert strategies[0].state().covariance[0, 0] > strategies[1].state().covariance[0, 0]


def test_one_coordinate() -> None:
    strategy = _strategy(n=1)
    _advance(strategy, np.random.default_rng(0), np.array([2.2]), 50)
    assert strategy.state().parameters == pytest.approx({"x0": 2.2}, abs=1e-2)
    assert strategy.state().covariance.shape == (1, 1)


def test_integer_coordinates_keep_a_spread_of_their_step() -> None:
    coordinates = Coordinates({"k": IntDistribution(0, 10), "l": IntDistribution(0, 10)})
    strategy = Strategy(coordinates, initial_state(coordinates, np.array([5.0, 5.0]), None), 6)
    rng = np.random.default_rng(0)
    for _ in range(60):
        normals = rng.standard_normal((6, 2))
        points = np.array([strategy.draw(z) for z in normals])
        strategy.update(normals, np.empty((0, 2)), np.sum((points - 5.0) ** 2, axis=1))
    assert min(strategy.state().standard_deviations.values()) >= 0.19


def test_many_updates_after_convergence_stay_finite() -> None:
    strategy = _strategy(n=2)
    _advance(strategy, np.random.default_rng(0), np.array([0.0, 3.0]), 600)
    state = strategy.state()
    assert np.all(np.isfinite(state.covariance))
    assert state.mean == pytest.approx([0.0, 3.0], abs=1e-6)
    assert strategy.stop_reasons
