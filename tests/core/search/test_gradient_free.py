from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import CallableCost, WeightSize
from gfb_brevitas.rules import Fix
from gfb_brevitas.samplers import CmaState
from gfb_brevitas.search import GenerationRecord, GradientFreeStep, SearchConfig, StepOutcome, TrainingConfig
from gfb_brevitas.search.generation_log import GenerationLog
from gfb_brevitas.search.training import Trainer
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.sensitivity import Allocator
from tests.core.search.small_problem import budgets, loader, loss, network, searchable

CONFIG = SearchConfig(evaluations_per_step=60, population_size=6, super_batch_size=3, reevaluate_best=3)
DATA = loader(256)


@pytest.fixture(scope="module")
def trained() -> SearchableModel:
    """A model that is worth something at 4 bits."""
    model = searchable()
    model.calibrate(list(loader()))
    trainer = Trainer(model, loss, TrainingConfig(optimizer="sgd", learning_rate=0.05), epochs=8, seed=0)
    for epoch in range(8):
        trainer.run_epoch(loader(), epoch)
    return model


def step(model: SearchableModel, constraints: Constraints | None = None, **changes: Any) -> GradientFreeStep:
    arguments: dict[str, Any] = {
        "loss": loss,
        "batches": DATA,
        "constraints": Constraints(model.space, budgets()) if constraints is None else constraints,
        "config": CONFIG,
        "round": 1,
        "step": 1,
        "study_name": "test/round-01/step-01",
    }
    return GradientFreeStep(model=model, **{**arguments, **changes})


def start(model: SearchableModel, bits: int = 4) -> Any:
    return model.space.bits(model.space.uniform(bits))


def bits_of(outcome: StepOutcome) -> list[int]:
    chosen: list[int] = outcome.bits.tolist()
    return chosen


def test_the_choice_is_feasible_and_not_worse_than_the_incumbent(trained: SearchableModel) -> None:
    constraints = Constraints(trained.space, budgets(beta=1.0))
    outcome = step(trained, constraints).run(start(trained))
    record = outcome.record
    assert constraints.feasible(outcome.bits[None, :])[0]
    assert record.allocation == dict(trained.space.allocation(outcome.bits))
    assert record.chosen is not None and record.chosen.bits == tuple(bits_of(outcome))
    losses = [candidate.reevaluated_loss for candidate in record.candidates]
    assert record.chosen.reevaluated_loss == min(losses)
    for candidate in record.candidates:
        assert Allocator(constraints).is_full(np.array(candidate.bits))
    assert any(math.isfinite(c.super_batch_loss) for c in record.candidates)


def test_the_search_finds_what_matters() -> None:
    """Accuracy hangs on one quantizer; the search must spend the bits there."""
    model = searchable()

    def needs_first(_: nn.Module, batch: Any) -> Tensor:
        first, middle, last = model.allocation.values()
        return torch.tensor(2.0**-first + 0.01 * 2.0 ** -(middle + last))

    constraints = Constraints(model.space, [Budget(cost=WeightSize(), beta=0.9, uniform_bits=4, rho=20.0)])
    config = SearchConfig(evaluations_per_step=200, super_batch_size=1)
    outcome = step(model, constraints, loss=needs_first, config=config).run(start(model))
    assert outcome.bits[0] >= 4 > outcome.bits[2]


def test_weights_and_allocation_are_left_alone(trained: SearchableModel) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    allocation = trained.allocation
    step(trained).run(start(trained, 2))
    assert trained.allocation == allocation
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_steps_repeat_and_differ(trained: SearchableModel) -> None:
    first, again = step(trained).run(start(trained)), step(trained).run(start(trained))
    assert bits_of(first) == bits_of(again)
    assert first.record.candidates == again.record.candidates
    assert first.distribution is not None and again.distribution is not None
    assert first.distribution.to_json() == again.distribution.to_json()
    for change in ({"step": 2}, {"round": 2}, {"config": SearchConfig(**{**vars(CONFIG), "seed": 1})}):
        other = step(trained, **change).run(start(trained))
        assert other.distribution is not None
        assert other.distribution.to_json() != first.distribution.to_json()


def test_only_whole_generations_within_the_evaluations(trained: SearchableModel) -> None:
    seen: list[GenerationRecord] = []
    config = SearchConfig(evaluations_per_step=20, population_size=6, super_batch_size=2)
    record = step(trained, config=config, on_generation=seen.append).run(start(trained)).record
    assert (record.evaluations, record.generations, record.stopped) == (18, 3, "evaluations")
    assert [(r.generation, r.evaluations) for r in seen] == [(1, 6), (2, 12), (3, 18)]
    assert record.distinct <= 18


def test_a_small_number_of_evaluations_makes_the_default_population_small(trained: SearchableModel) -> None:
    config = SearchConfig(evaluations_per_step=4, super_batch_size=2)
    assert step(trained, config=config).run(start(trained)).record.evaluations == 4


def test_cma_es_may_stop_first(trained: SearchableModel) -> None:
    config = SearchConfig(method="cma-es", evaluations_per_step=3000, super_batch_size=1)
    record = (
        step(trained, config=config, loss=lambda model, batch: torch.tensor(1.0)).run(start(trained)).record
    )
    assert record.evaluations < 3000
    assert "tol" in record.stopped


def test_a_carried_distribution_goes_on(trained: SearchableModel) -> None:
    first = step(trained).run(start(trained))
    assert first.distribution is not None
    carried = CmaState.from_json(first.distribution.to_json())
    second = step(trained, step=2).run(first.bits, carried)
    assert second.distribution is not None
    assert second.distribution.generation == first.distribution.generation + second.record.generations
    assert step(trained, step=2).run(first.bits).distribution != second.distribution


def test_losses_from_the_log_are_not_computed_again(trained: SearchableModel, tmp_path: Path) -> None:
    path, calls = tmp_path / "log.jsonl", []

    def counted(model: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return loss(model, batch)

    def logged() -> StepOutcome:
        log = GenerationLog(path, {"state": "a"})
        config = SearchConfig(**{**vars(CONFIG), "evaluator": "reference"})
        return step(trained, loss=counted, log=log, config=config).run(start(trained))

    first = logged()
    path.write_bytes(path.read_bytes()[:-3])  # killed while writing the last generation
    first_calls = len(calls)
    second = logged()
    reevaluations = len(second.record.candidates) * len(DATA)
    one_generation = 6 * CONFIG.super_batch_size
    sensitivity = 4  # of what budgets have room for
    assert len(calls) - first_calls <= reevaluations + one_generation + sensitivity < first_calls
    assert first.record.candidates == second.record.candidates
    assert bits_of(first) == bits_of(second)


def fragile(model: SearchableModel, rule: Any) -> Any:
    """The loss, but NaN where a rule holds for the allocation."""

    def function(_: nn.Module, batch: Any) -> Tensor:
        value = loss(model, batch)
        return value * math.nan if rule(*model.allocation.values()) else value

    return function


def test_candidates_without_finite_loss_are_survived(
    trained: SearchableModel, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[GenerationRecord] = []
    storage = optuna.storages.InMemoryStorage()
    outcome = step(
        trained,
        loss=fragile(trained, lambda first, middle, last: middle < 3),
        on_generation=seen.append,
        writer=TrialWriter(storage),
    ).run(start(trained))
    assert sum(record.non_finite for record in seen) > 0
    assert outcome.bits[1] == 3
    assert "losses are not finite" in caplog.text
    study = optuna.load_study(study_name="test/round-01/step-01", storage=storage)
    bad = [t for t in study.trials if json.loads(t.user_attrs["bits"])["2.act_quant"] < 3]
    good = [t.value for t in study.trials if t not in bad and t.value is not None]
    assert bad and all(t.user_attrs["loss"] == "nan" and t.value == math.inf for t in bad)
    assert max(good) < math.inf


def test_when_no_loss_is_finite_the_step_stays_near_the_incumbent(trained: SearchableModel) -> None:
    constraints = Constraints(trained.space, budgets())
    outcome = step(trained, constraints, loss=fragile(trained, lambda *bits: True)).run(start(trained))
    allocator = Allocator(constraints)
    assert allocator.is_full(outcome.bits) and (outcome.bits >= constraints.repair(start(trained))).all()
    feasible = start(trained, 2)
    outcome = step(trained, constraints, loss=fragile(trained, lambda *bits: True)).run(feasible)
    assert allocator.is_full(outcome.bits) and (outcome.bits >= feasible).all()


def test_when_no_sample_is_feasible_the_choice_still_is(trained: SearchableModel) -> None:
    odd = CallableCost(
        name="distance",
        unit="bits",
        function=lambda bits, profile: 1.0 + np.abs(bits - [1, 8, 1]).sum(axis=1),
        vectorized=True,
    )
    constraints = Constraints(trained.space, [Budget(cost=odd, limit=1.0, rho=0.1)])
    config = SearchConfig(**{**vars(CONFIG), "method": "cma-es"})
    outcome = step(trained, constraints, config=config).run(start(trained))
    assert outcome.record.feasible_share == 0.0
    assert bits_of(outcome) == [1, 8, 1]
    assert outcome.record.candidates[0].source == "repaired"


def test_trials_are_copied_into_the_user_s_storage(trained: SearchableModel, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    storage = optuna.storages.get_storage(url)
    constraints = Constraints(trained.space, budgets())
    config = SearchConfig(evaluations_per_step=24, population_size=6, super_batch_size=2)
    record = step(trained, constraints, writer=TrialWriter(storage), config=config).run(start(trained)).record
    study = optuna.load_study(study_name="test/round-01/step-01", storage=url)
    assert len(study.trials) == record.evaluations
    for trial in study.trials:
        allocation = json.loads(trial.user_attrs["bits"])
        row = trained.space.bits(trained.space.check(allocation))
        vector = [trial.params[c.name] for c in trained.space.free]
        np.testing.assert_array_equal(trained.space.decode(vector), row)
        assert trial.value == pytest.approx(trial.user_attrs["loss"] + trial.user_attrs["penalty"])
        assert trial.user_attrs["penalty"] == pytest.approx(constraints.penalty(row[None, :])[0])
        assert set(trial.constraints) == {*constraints.names, "0", "1"}  # and as Optuna 4 had them
        for name in constraints.names:
            assert trial.user_attrs[f"violation_{name}"] == max(trial.constraints[name], 0.0)
        assert trial.user_attrs["feasible"] == (max(trial.constraints.values()) <= 0)


def test_a_space_without_freedom() -> None:
    model = searchable(network(), rules=(Fix("*", 3),))
    outcome = step(model, Constraints(model.space)).run(start(model, 3))
    assert bits_of(outcome) == [3, 3, 3]
    assert outcome.distribution is None and outcome.record.chosen is None


def test_a_space_with_one_coordinate() -> None:
    model = searchable(network(), rules=(Fix("0.*", 3), Fix("2.*", 3)))
    constraints = Constraints(model.space, [Budget(cost=WeightSize(), beta=0.9, uniform_bits=4)])
    outcome = step(model, constraints).run(start(model))
    assert bits_of(outcome)[:2] == [3, 3]
    assert constraints.feasible(outcome.bits[None, :])[0]


@pytest.mark.parametrize("kind", ["moving", "fixed", "single"])
def test_kinds_of_super_batches(trained: SearchableModel, kind: Any) -> None:
    batches: list[float] = []

    def noting(model: nn.Module, batch: Any) -> Tensor:
        batches.append(float(batch[0].sum()))
        return loss(model, batch)

    config = SearchConfig(
        evaluations_per_step=18, population_size=6, super_batch_size=3, super_batch=kind, reevaluate_batches=1
    )
    data = list(loader(512))
    step(trained, config=config, loss=noting, batches=data).run(start(trained))
    position = {float(batch[0].sum()): i for i, batch in enumerate(data)}
    used = {position[b] for b in batches}
    # One more than there are generations: how sensitive quantizers are that budgets have room for.
    assert used == {"moving": {0, 1, 2, 3, 4, 5}, "fixed": {0, 1, 2}, "single": {0, 1, 2, 3}}[kind]


def test_constraint_penalty_uses_its_weight(trained: SearchableModel) -> None:
    """With no weight on the violation, more bits are better and few samples are feasible."""
    shares = []
    for rho in (0.0, 100.0):
        limited = Constraints(trained.space, [Budget(cost=WeightSize(), beta=0.5, uniform_bits=4, rho=rho)])
        config = SearchConfig(evaluations_per_step=120, super_batch_size=2)
        shares.append(step(trained, limited, config=config).run(start(trained)).record.feasible_share)
    assert shares[0] < shares[1]
