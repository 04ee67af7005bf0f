from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.samplers import CmaState


def _state(**changes: Any) -> CmaState:
    root = np.random.default_rng(0).standard_normal((3, 3))
    settings = {
        "names": ("b", "a", "c"),
        "mean": np.array([1 / 3, 2e-17, -5.0]),
        "step_size": 0.1,
        "scales": np.array([1.0, 2.0, 0.5]),
        "covariance": root @ root.T,
        "covariance_path": np.array([0.1, -0.2, 0.3]),
        "step_size_path": np.array([1.1, 1.2, np.pi]),
        "generation": 7,
        "evaluations": 49,
    }
    return CmaState(**{**settings, **changes})


def test_json_round_trip_is_exact() -> None:
    state = _state()
    again = CmaState.from_json(state.to_json())
    assert again.to_json() == state.to_json()
    for name in ("mean", "scales", "covariance", "covariance_path", "step_size_path"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    assert (again.names, again.step_size, again.generation, again.evaluations) == (
        ("b", "a", "c"),
        0.1,
        7,
        49,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "gfb_brevitas.CmaState", "version": 99}',
        '{"format": "gfb_brevitas.CmaState", "version": 1, "names": ["a"]}',
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"not a state written by CmaState\.to_json"):
        CmaState.from_json(text)


def test_damaged_numbers_are_refused() -> None:
    content = json.loads(_state().to_json())
    content["mean"].pop()
    with pytest.raises(CheckpointError, match="'mean'"):
        CmaState.from_json(json.dumps(content))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mean": np.zeros(2)}, r"'mean'.*shape \(3,\)"),
        ({"mean": np.array([0, np.nan, 0])}, "finite"),
        ({"step_size": 0.0}, "step size"),
        ({"scales": np.array([1.0, -1.0, 1.0])}, "scales"),
        ({"covariance": np.diag([1.0, 0.0, 1.0])}, "positive definite"),
        ({"covariance": np.eye(3) + np.triu(np.full((3, 3), 0.1), 1)}, "symmetric"),
    ],
)
def test_impossible_distributions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _state(**changes)


def test_arrays_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        _state().mean[0] = 1.0


def test_another_order_is_the_same_distribution() -> None:
    state = _state()
    ordered = state.ordered(("a", "b", "c"))
    assert ordered.parameters == state.parameters
    assert ordered.standard_deviations == pytest.approx(state.standard_deviations)
    assert ordered.covariance[0, 2] == state.covariance[1, 2]
    assert ordered.condition_number == pytest.approx(state.condition_number)
    with pytest.raises(ConfigurationError, match=r"over \['a', 'b'\]"):
        state.ordered(("a", "b"))


def test_condition_number_and_deviations_are_those_of_the_matrices() -> None:
    state = _state(covariance=np.diag([4.0, 1.0, 16.0]))
    assert state.condition_number == pytest.approx(16.0)
    assert state.standard_deviations == pytest.approx({"b": 0.2, "a": 0.2, "c": 0.2})
