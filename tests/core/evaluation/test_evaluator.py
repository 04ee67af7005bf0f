from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation import (
    ReferenceEvaluator,
    SuperBatch,
    evaluator_names,
    make_evaluator,
    register_evaluator,
)
from gfb_brevitas.evaluation import evaluator as evaluator_module
from tests.core.search.small_problem import loader, loss, searchable


@pytest.fixture
def model() -> SearchableModel:
    return searchable()


@pytest.fixture
def window() -> SuperBatch:
    return SuperBatch(loader(256), size=3, seed=1)


class CountingLoss:
    """The loss, with a note of every call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, SearchableModel)
        assert not model.training and not torch.is_grad_enabled()
        self.calls.append(tuple(model.allocation.values()))
        return loss(model, batch)


def test_losses_are_those_of_the_model_at_the_allocations(model: SearchableModel, window: SuperBatch) -> None:
    rows = np.array([[1, 2, 3], [8, 8, 8], [4, 1, 2]])
    losses = ReferenceEvaluator(model, loss).losses(rows, window)
    expected = []
    model.eval()
    for row in rows:
        model.set_allocation(model.space.allocation(row))
        with torch.no_grad():
            expected.append(np.mean([float(loss(model, batch)) for batch in window]))
    assert losses.dtype == np.float64
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert len(set(losses.tolist())) == 3


def test_allocation_and_modes_are_restored(model: SearchableModel, window: SuperBatch) -> None:
    model.train()
    norm = model.model[1]  # type: ignore[index]
    norm.eval()  # a frozen BatchNorm stays frozen
    statistics = norm.running_mean.clone()
    before = model.allocation
    ReferenceEvaluator(model, loss).losses(np.array([[1, 1, 1]]), window)
    assert model.allocation == before
    assert model.training and model.model[0].training and not norm.training  # type: ignore[index]
    assert torch.equal(norm.running_mean, statistics)
    assert torch.is_grad_enabled()


def test_state_is_restored_when_the_loss_fails(model: SearchableModel, window: SuperBatch) -> None:
    def failing(model: nn.Module, batch: Any) -> Tensor:
        raise RuntimeError("no loss")

    model.train()
    before = model.allocation
    with pytest.raises(RuntimeError, match="no loss"):
        ReferenceEvaluator(model, failing).losses(np.array([[1, 1, 1]]), window)
    assert model.allocation == before and model.training


def test_equal_rows_are_evaluated_once(model: SearchableModel, window: SuperBatch) -> None:
    counting = CountingLoss()
    evaluator = ReferenceEvaluator(model, counting)
    losses = evaluator.losses(np.array([[2, 2, 2], [3, 3, 3], [2, 2, 2]]), window)
    assert losses[0] == losses[2] != losses[1]
    assert counting.calls.count((2, 2, 2)) == 3  # minibatches
    again = evaluator.losses(np.array([[3, 3, 3]]), window)
    assert again[0] == losses[1]
    assert len(counting.calls) == 6


def test_after_a_move_only_the_new_minibatch_is_evaluated(model: SearchableModel, window: SuperBatch) -> None:
    counting = CountingLoss()
    evaluator = ReferenceEvaluator(model, counting)
    row = np.array([[2, 3, 4]])
    evaluator.losses(row, window)
    window.advance()
    moved = evaluator.losses(row, window)
    assert len(counting.calls) == 3 + 1
    assert moved == ReferenceEvaluator(model, loss).losses(row, window)


def test_a_minibatch_that_left_is_forgotten(model: SearchableModel) -> None:
    counting = CountingLoss()
    evaluator = ReferenceEvaluator(model, counting)
    window = SuperBatch(loader(256), size=2)
    for _ in range(3):
        evaluator.losses(np.array([[2, 2, 2]]), window)
        window.advance()
    evaluator.losses(np.array([[2, 2, 2]]), window)
    assert len(evaluator._known) == 2


def test_a_minibatch_that_repeats_counts_every_time(model: SearchableModel) -> None:
    batches = list(loader())[:2]
    counting = CountingLoss()
    twice = ReferenceEvaluator(model, counting).losses(
        np.array([[3, 3, 3]]), SuperBatch.of([batches[0], batches[1], batches[0]])
    )
    parts = [
        ReferenceEvaluator(model, loss).losses(np.array([[3, 3, 3]]), SuperBatch.of([b]))[0] for b in batches
    ]
    assert len(counting.calls) == 2
    assert twice[0] == pytest.approx((2 * parts[0] + parts[1]) / 3)


def test_changed_weights_are_noticed(model: SearchableModel, window: SuperBatch) -> None:
    evaluator = ReferenceEvaluator(model, loss)
    row = np.array([[4, 4, 4]])
    before = evaluator.losses(row, window)
    with torch.no_grad():
        model.model[0].bias.add_(1.0)  # type: ignore[index]
    assert evaluator.losses(row, window) != before
    assert evaluator.losses(row, window) == ReferenceEvaluator(model, loss).losses(row, window)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_candidate_without_finite_loss_does_not_disturb_the_others(
    model: SearchableModel, window: SuperBatch, bad: float
) -> None:
    def fragile(model: Any, batch: Any) -> Tensor:
        value = loss(model, batch)
        return value * bad if tuple(model.allocation.values()) == (1, 1, 1) else value

    rows = np.array([[2, 2, 2], [1, 1, 1], [3, 3, 3]])
    losses = ReferenceEvaluator(model, fragile).losses(rows, window)
    assert np.isfinite(losses).tolist() == [True, False, True]
    np.testing.assert_array_equal(
        losses[[0, 2]], ReferenceEvaluator(model, loss).losses(rows[[0, 2]], window)
    )


def test_a_loss_may_be_a_number(model: SearchableModel, window: SuperBatch) -> None:
    losses = ReferenceEvaluator(model, lambda model, batch: 0.25).losses(  # type: ignore[arg-type,return-value]
        np.array([[2, 2, 2]]), window
    )
    assert losses.tolist() == [0.25]


def test_a_loss_must_be_one_number(model: SearchableModel, window: SuperBatch) -> None:
    with pytest.raises(ConfigurationError, match=r"one number.*shape \(32, 4\)"):
        ReferenceEvaluator(model, lambda model, batch: model(batch[0])).losses(np.array([[2, 2, 2]]), window)


@pytest.mark.parametrize("rows", [np.ones((2, 4), dtype=np.int64), np.ones(3, dtype=np.int64)])
def test_shape_is_checked(model: SearchableModel, window: SuperBatch, rows: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\(candidates, 3\)"):
        ReferenceEvaluator(model, loss).losses(rows, window)


def test_no_candidates(model: SearchableModel, window: SuperBatch) -> None:
    assert ReferenceEvaluator(model, loss).losses(np.empty((0, 3), dtype=np.int64), window).shape == (0,)


def test_registry(model: SearchableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator_module, "_factories", dict(evaluator_module._factories))
    assert isinstance(make_evaluator("reference", model, loss), ReferenceEvaluator)
    register_evaluator("mine", ReferenceEvaluator)
    assert "mine" in evaluator_names()
    with pytest.raises(ConfigurationError, match="no evaluator 'fast'.*mine, prepared, reference"):
        make_evaluator("fast", model, loss)


@pytest.mark.cuda
def test_on_cuda() -> None:
    model = searchable()
    rows = np.array([[2, 3, 4], [8, 8, 8]])
    on_cpu = ReferenceEvaluator(model, loss).losses(rows, SuperBatch(loader(), size=3))
    model.cuda()
    on_gpu = ReferenceEvaluator(model, loss).losses(
        rows, SuperBatch(loader(), size=3, device=torch.device("cuda"))
    )
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3)
