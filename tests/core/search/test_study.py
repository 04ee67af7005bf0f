"""The study of a gradient-free step, by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import CallableCost
from gfb_brevitas.search.study import StepStudy, make_sampler
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import two_layers


def test_a_generation_computes_its_costs_once() -> None:
    rows: list[int] = []

    def mean(bits: Any, profile: Any) -> Any:
        rows.append(len(bits))
        return bits.mean(axis=1)

    space = SearchSpace(two_layers())
    cost = CallableCost(function=mean, name="mean", unit="bits", vectorized=True)
    constraints = Constraints(space, [Budget(cost=cost, limit=4.0)])
    sampler = make_sampler(space, space.bits(space.uniform(4)), step_size=0.5, population_size=6, seed=0)
    storage = optuna.storages.InMemoryStorage()
    study = StepStudy(constraints, sampler, name="step", writer=TrialWriter(storage))
    rows.clear()
    trials, bits = study.ask(6)
    generation = study.tell(trials, bits, np.linspace(1.0, 2.0, 6))
    assert rows == [6]
    np.testing.assert_array_equal(generation.feasible, bits.mean(axis=1) <= 4)
    stored = optuna.load_study(study_name="step", storage=storage).trials
    assert [t.constraints["mean"] for t in stored] == (bits.mean(axis=1) / 4 - 1).tolist()
    assert [t.value for t in stored] == generation.values.tolist()
