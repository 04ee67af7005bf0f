"""Spaces so small that a search runs out of candidates: that is an end, and no error."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import optuna
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.costs import MeanActivationBits
from gfb_brevitas.samplers import CmaSampler

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(X, (X.sum(1) > 0).long())]


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def searchable(free: int, bits: tuple[int, int]) -> gfb.SearchableModel:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(8, 8, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(8, 8, bias=True),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(8, 2, bias=False),
    )
    names = gfb.make_searchable(model, X).profile.names
    return gfb.make_searchable(model, X, bits=bits, rules=[gfb.Fix(name, 2) for name in names[free:]])


def fitted(model: gfb.SearchableModel, budgets: Any = (), **search: Any) -> gfb.SearchResult:
    settings = {"rounds": 2, "steps_per_round": 1, "epochs_per_round": 0, "evaluator": "reference", **search}
    return gfb.fit(
        model,
        loss=loss,
        train_batches=BATCHES,
        validation_batches=BATCHES,
        budgets=budgets,
        calibrate=False,
        search=gfb.SearchConfig(super_batch_size=2, **settings),
    )


@pytest.mark.parametrize("population", [None, 3, 40])
@pytest.mark.parametrize("method", ["surrogate", "cma-es"])
@pytest.mark.parametrize("free", [0, 1, 2, 6])
@pytest.mark.parametrize("bits", [(2, 3), (1, 8)])
def test_any_small_space(free: int, bits: tuple[int, int], method: str, population: int | None) -> None:
    model = searchable(free, bits)
    result = fitted(model, method=method, population_size=population, evaluations_per_step=48)
    assert result.allocation == model.space.check(result.allocation)
    candidates = (bits[1] - bits[0] + 1) ** free
    for step in result.history.steps:
        assert step.distinct <= candidates
        if method == "surrogate" and free:
            assert step.stopped in ("evaluations", "nothing new to evaluate")


@pytest.mark.parametrize("free", [1, 2])
def test_the_default_number_of_evaluations(free: int) -> None:
    default = gfb.SearchConfig().evaluations_per_step
    result = fitted(searchable(free, (1, 8)), evaluations_per_step=default)
    assert [step.stopped for step in result.history.steps] == ["nothing new to evaluate"] * 2


@pytest.mark.parametrize("method", ["surrogate", "cma-es"])
def test_one_candidate_within_the_budgets(method: str) -> None:
    model = searchable(2, (1, 4))
    least = model.space.smallest()
    size = gfb.Budget(cost=MeanActivationBits(), limit=1e-9 + float(_mean_activation_bits(model)))
    result = fitted(model, [size], method=method, evaluations_per_step=48)
    assert result.allocation["0.act_quant"] == least["0.act_quant"] == 1


def _mean_activation_bits(model: gfb.SearchableModel) -> Any:
    bits = model.space.bits(model.space.smallest())
    return MeanActivationBits().bind(model.profile)(bits[None])[0]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("objective", ["constant", "sloped", "infinite"])
def test_the_sampler_in_a_study_of_a_user(dimensions: int, objective: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=CmaSampler(seed=0, population_size=4))

    def value(trial: optuna.Trial) -> float:
        total = sum(trial.suggest_int(f"x{k}", 1, 2) for k in range(dimensions))
        return {"constant": 1.0, "sloped": float(total), "infinite": float("inf")}[objective]

    study.optimize(value, n_trials=60)
    assert len(study.trials) == 60
