from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.evaluation import (
    Evaluator,
    Planned,
    PreparedEvaluator,
    ReferenceEvaluator,
    SuperBatch,
    make_evaluator,
)
from gfb_brevitas.evaluation.automatic import runs_that_pay
from gfb_brevitas.evaluation.evaluator import account_of
from gfb_brevitas.evaluation.work import Work, work_of
from tests.core.prepared.preparing import images, residual_network, searchable_model


def classified(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    return [(images(16, seed=seed), torch.arange(16) % 10) for seed in range(count)]


@pytest.fixture(scope="module")
def model() -> SearchableModel:
    return searchable_model(residual_network(), images())


def chosen(model: SearchableModel, *, candidates: int, steps: int, minibatches: int = 1) -> Evaluator:
    plan = Planned(candidates=candidates, steps=steps, super_batch=SuperBatch.of(batches(minibatches)))
    return make_evaluator("auto", model, classified, "running", plan)


def test_a_program_is_prepared_where_what_is_planned_pays_for_it(model: SearchableModel) -> None:
    few, many = chosen(model, candidates=60, steps=1), chosen(model, candidates=1024, steps=20)
    assert isinstance(few, ReferenceEvaluator) and isinstance(many, PreparedEvaluator)
    assert "60 are planned" in few.account and "preparing it pays" in few.account
    assert isinstance(chosen(model, candidates=60, steps=400), PreparedEvaluator)  # steps share a program
    assert isinstance(chosen(model, candidates=60, steps=20, minibatches=8), PreparedEvaluator)


def test_without_a_plan_and_by_name_nothing_is_weighed(model: SearchableModel) -> None:
    assert isinstance(make_evaluator("auto", model, classified), PreparedEvaluator)
    plan = Planned(candidates=3, steps=1, super_batch=SuperBatch.of(batches(1)))
    assert isinstance(make_evaluator("prepared", model, classified, "running", plan), PreparedEvaluator)


def test_the_choice_is_counted_and_leaves_no_trace(model: SearchableModel) -> None:
    model.set_bits([3] * len(model.profile))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    accounts = {account_of(chosen(model, candidates=60, steps=1), "auto") for _ in range(3)}
    assert len(accounts) == 1
    assert set(model.allocation.values()) == {3}
    assert torch.equal(torch.get_rng_state(), before)


def test_work_is_counted() -> None:
    work = work_of(lambda: torch.ones(4, 5) @ torch.ones(5, 6))
    assert work == Work(operations=3, numbers=20 + 30 + 24, multiplications=120)


def test_where_products_take_all_the_time_no_program_helps() -> None:
    assert runs_that_pay(Work(operations=100, numbers=10**6, multiplications=10**10), 20) == float("inf")
    small = Work(operations=1000, numbers=10**5, multiplications=10**6)
    large = Work(operations=1000, numbers=10**8, multiplications=10**6)
    assert runs_that_pay(large, 1) < runs_that_pay(small, 1)
    assert runs_that_pay(small, 20) < runs_that_pay(small, 1)


def test_a_run_says_what_evaluates_its_candidates(model: SearchableModel) -> None:
    def searched(evaluator: str) -> str:
        result = gfb.fit(
            model,
            loss=classified,
            train_batches=batches(1),
            budgets=gfb.paper_budgets(4),
            search=gfb.SearchConfig(
                rounds=1, steps_per_round=1, evaluations_per_step=12, epochs_per_round=0, evaluator=evaluator
            ),
            calibrate=False,
        )
        return result.history.steps[0].evaluator

    assert searched("reference") == "the model itself"
    assert searched("auto").startswith("the model itself; preparing it pays from about")
    account = searched("prepared")
    assert account == "a prepared program in floating point"
