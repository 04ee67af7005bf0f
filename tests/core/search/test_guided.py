from __future__ import annotations

import json
import math

import numpy as np
import optuna

from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import WeightSize
from gfb_brevitas.search.guided import GuidedStudy
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.sensitivity import SensitivityTable, allocate
from gfb_brevitas.space import Bits, Vector
from tests.core.search.small_problem import searchable

MODEL = searchable()
WEIGHTS = np.array([4.0, 1.0, 0.2])
TABLE = SensitivityTable(
    names=MODEL.profile.names, increases=WEIGHTS[:, None] * 4.0 ** -np.arange(9)[None, :]
)


def problem() -> Constraints:
    return Constraints(MODEL.space, [Budget(cost=WeightSize(), beta=0.9, uniform_bits=4, rho=20.0)])


def losses(bits: Bits) -> Vector:
    total: Vector = (WEIGHTS * 2.0**-bits).sum(axis=1)
    return total


def study(table: SensitivityTable | None = TABLE, seed: int = 0, **changes: object) -> GuidedStudy:
    start = MODEL.space.bits(MODEL.space.uniform(4))
    settings: dict[str, object] = {"name": "s", "seed": seed, "step_size": 0.5, "population_size": 6}
    return GuidedStudy(problem(), start, lambda: table, **{**settings, **changes})  # type: ignore[arg-type]


def searched(guided: GuidedStudy, generations: int) -> list[Bits]:
    drawn = []
    for _ in range(generations):
        trials, bits = guided.ask(6)
        guided.tell(trials, bits, losses(bits))
        drawn.append(bits)
    return drawn


def test_it_starts_with_the_incumbent_and_what_the_estimate_suggests() -> None:
    constraints, first = problem(), study().ask(6)[1]
    np.testing.assert_array_equal(first[0], constraints.repair([4, 4, 4]))
    np.testing.assert_array_equal(first[1], allocate(constraints, TABLE.increases))
    assert len(np.unique(first, axis=0)) == len(first)


def test_it_needs_no_estimate() -> None:
    guided = study(None)
    best = min(float(losses(bits).min()) for bits in searched(guided, 6))
    assert best < float(losses(problem().repair([4, 4, 4])[None, :])[0])


def test_nothing_is_evaluated_twice() -> None:
    rows = np.concatenate(searched(study(), 6))
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_equal_seeds_choose_equal_candidates_and_other_seeds_others() -> None:
    first, again, other = (np.concatenate(searched(study(seed=s), 4)).tolist() for s in (0, 0, 1))
    assert first == again != other


def test_replayed_generations_lead_to_the_same_candidates() -> None:
    drawn = searched(study(), 4)

    def refuse() -> SensitivityTable:
        raise AssertionError("the estimate is not needed again")

    replayed = study()
    replayed._sensitivity = refuse
    for bits in drawn[:3]:
        trials, same = replayed.ask(6, bits)
        np.testing.assert_array_equal(same, bits)
        replayed.tell(trials, same, losses(same))
    np.testing.assert_array_equal(replayed.ask(6)[1], drawn[3])


def test_the_distribution_follows_and_can_be_carried_on() -> None:
    guided = study()
    before = guided.distribution()
    searched(guided, 8)
    after = guided.distribution()
    assert after.generation > before.generation == 0
    assert not np.array_equal(after.mean, before.mean)
    assert study(distribution=after).distribution().generation == after.generation


def test_it_stops_when_everything_is_known() -> None:
    guided = study()
    every = np.stack(np.meshgrid(*[np.arange(1, 9)] * 3), axis=-1).reshape(-1, 3)
    guided.tell([], every, losses(every))
    assert guided.stop_reason() is None
    trials, bits = guided.ask(6)
    guided.tell(trials, bits, losses(bits))
    assert guided.stop_reason() == "nothing new to evaluate"


def test_every_candidate_is_a_trial() -> None:
    storage = optuna.storages.InMemoryStorage()
    guided, space = study(writer=TrialWriter(storage)), MODEL.space
    trials, bits = guided.ask(6)
    values = losses(bits)
    values[2] = math.nan
    guided.tell(trials, bits, values)
    stored = optuna.load_study(study_name="s", storage=storage).trials
    assert len(stored) == len(bits)
    for i, trial in enumerate(stored):
        vector = [trial.params[c.name] for c in space.free]
        np.testing.assert_array_equal(space.decode(vector), bits[i])
        assert json.loads(trial.user_attrs["bits"]) == dict(space.allocation(bits[i]))
        assert (trial.value == math.inf) == (i == 2) and set(trial.constraints) == {problem().names[0], "0"}
