from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation import PreparedEvaluator, ReferenceEvaluator, SuperBatch, make_evaluator
from gfb_brevitas.evaluation.modes import BatchNormStatistics
from gfb_brevitas.prepared import integer_products_available
from tests.core.evaluation.test_evaluator import CountingLoss
from tests.core.prepared.preparing import images, residual_network, searchable_model
from tests.core.search.small_problem import loader, loss, searchable

needs_integers = pytest.mark.skipif(
    not integer_products_available(), reason="needs a CPU that multiplies bytes (VNNI or AMX)"
)
NAMES = ["prepared", pytest.param("integer", marks=needs_integers), "auto"]


def classified(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def image_batches(count: int, samples: int = 64) -> list[tuple[Tensor, Tensor]]:
    labels = torch.arange(samples) % 10
    return [(images(samples, seed=seed), labels) for seed in range(count)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batchnorm", ["running", "batch"])
def test_losses_are_those_of_the_reference(name: str, batchnorm: BatchNormStatistics) -> None:
    model = searchable_model(residual_network(), images())
    window = SuperBatch.of(image_batches(2))
    rows = np.random.default_rng(0).integers(2, 9, size=(12, len(model.profile)))
    expected = ReferenceEvaluator(model, classified, batchnorm).losses(rows, window)
    computed = make_evaluator(name, model, classified, batchnorm).losses(rows, window)
    assert computed.dtype == np.float64
    # Float noise that lifts a value over a rounding border moves single losses, rarely.
    assert np.mean(np.abs(computed / expected - 1) < 1e-4) >= 0.8
    np.testing.assert_allclose(computed, expected, rtol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_allocation_modes_and_forward_are_restored(name: str) -> None:
    model = searchable()
    model.train()
    model.set_bits([5, 6, 7])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    make_evaluator(name, model, loss).losses(np.array([[1, 2, 3]]), SuperBatch(loader(), size=2))
    assert list(model.allocation.values()) == [5, 6, 7]
    assert all(module.training for module in model.modules())
    assert "forward" not in vars(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())

    def failing(model: nn.Module, batch: Any) -> Tensor:
        raise KeyError("label")

    with pytest.raises(KeyError):
        make_evaluator(name, model, failing).losses(np.array([[1, 2, 3]]), SuperBatch(loader(), size=2))
    assert list(model.allocation.values()) == [5, 6, 7] and "forward" not in vars(model)


def test_equal_candidates_and_minibatches_that_stay_cost_nothing() -> None:
    model, counting = searchable(), CountingLoss()
    evaluator = PreparedEvaluator(model, counting)
    window = SuperBatch(loader(256), size=3)
    rows = np.array([[4, 4, 4], [2, 2, 2], [4, 4, 4]])
    first = evaluator.losses(rows, window)
    # Two candidates, and one by the recording and by the model, on each of three minibatches.
    assert len(counting.calls) == 12 and first[0] == first[2]
    window.advance()
    evaluator.losses(rows, window)
    assert len(counting.calls) == 14  # so many minibatches agreed that one more is not checked at once
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    changed = evaluator.losses(rows, window)
    assert len(counting.calls) == 26
    np.testing.assert_allclose(changed, ReferenceEvaluator(model, loss).losses(rows, window), rtol=1e-4)


def test_a_loss_may_use_the_model_otherwise_than_by_calling_it() -> None:
    def regularised(model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, SearchableModel)
        return (
            loss(model, batch)
            + sum(p.abs().mean() for p in model.parameters())
            + model.model(batch[0]).mean()
        )

    model, window = searchable(), SuperBatch(loader(), size=2)
    rows = np.array([[3, 3, 3], [6, 2, 5]])
    np.testing.assert_allclose(
        PreparedEvaluator(model, regularised).losses(rows, window),
        ReferenceEvaluator(model, regularised).losses(rows, window),
        rtol=1e-5,
    )


def test_programs_are_made_once_for_all_steps_of_a_model() -> None:
    model, window = searchable(), SuperBatch(loader(), size=1)
    rows = np.array([[3, 3, 3]])
    one = PreparedEvaluator(model, loss)
    one.losses(rows, window)
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    two = PreparedEvaluator(model, loss)
    computed = two.losses(rows, window)
    np.testing.assert_allclose(computed, ReferenceEvaluator(model, loss).losses(rows, window), rtol=1e-5)
    assert one._forward is two._forward and len(one._forward._ready) == 1
    assert PreparedEvaluator(model, loss, "batch")._forward is not one._forward


@pytest.mark.parametrize("name", ["prepared", "auto"])
def test_a_wrong_shape_is_an_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\(candidates, 3\)"):
        make_evaluator(name, searchable(), loss).losses(np.ones((2, 4)), SuperBatch(loader(), size=1))


def test_integers_without_the_instructions_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False, raising=False)
    with pytest.raises(ConfigurationError, match="VNNI"):
        make_evaluator("integer", searchable(), loss)
    automatic = make_evaluator("auto", searchable(), loss)
    assert isinstance(automatic, PreparedEvaluator) and not automatic._forward.integers


@pytest.mark.parametrize("name", NAMES)
def test_a_seeded_search_selects_the_same_allocation(name: str) -> None:
    chosen = []
    for evaluator in ("reference", name):
        model = searchable_model(residual_network(8), images())
        result = gfb.fit(
            model,
            loss=classified,
            train_batches=image_batches(3, 32),
            validation_batches=image_batches(1, 32),
            budgets=gfb.paper_budgets(3, rho=20.0),
            search=gfb.SearchConfig(
                rounds=1,
                steps_per_round=1,
                evaluations_per_step=60,
                epochs_per_round=0,
                super_batch_size=2,
                method="cma-es",  # which sees ranks only
                evaluator=evaluator,
            ),
        )
        chosen.append(dict(result.allocation))
    assert chosen[0] == chosen[1]


@dataclass
class Scores:
    """An output that PyTorch's trees do not look into."""

    scores: Tensor


class Returning(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.kept: dict[str, Tensor] = {}
        self.first = qnn.QuantLinear(6, 8, bias=True)
        self.relu = qnn.QuantReLU(bit_width=4, return_quant_tensor=False)
        self.last = qnn.QuantLinear(8, 3, bias=True)

    def forward(self, x: Tensor) -> Any:
        hidden = self.relu(self.first(x))
        if self.kind == "numpy":
            hidden = hidden * float(x.numpy().max())
        self.kept["hidden"] = hidden
        scores = self.last(hidden)
        if self.kind == "object":
            return Scores(scores)
        if self.kind == "width":
            return scores, float(self.last.weight_quant.bit_width())
        return scores


def loss_of_anything(model: nn.Module, batch: Any) -> Tensor:
    x, labels = batch
    found = model(x)
    if isinstance(found, Scores):
        found = found.scores
    if isinstance(found, tuple):
        found = found[0] * found[1]
    kind = model.model.kind
    extra = model.model.kept["hidden"].square().mean() if kind == "side channel" else 0.0
    return nn.functional.cross_entropy(found, labels) + extra


@pytest.mark.parametrize("name", ["prepared", "auto"])
@pytest.mark.parametrize("kind", ["object", "width", "numpy", "side channel"])
def test_what_a_recording_does_not_see_is_noticed(kind: str, name: str) -> None:
    searchable = gfb.make_searchable(Returning(kind), torch.randn(2, 6), bits=(2, 8))
    searchable.calibrate([torch.randn(32, 6)])
    batches = [(torch.randn(16, 6) * scale, torch.randint(0, 3, (16,))) for scale in (1.0, 2.0, 0.5)]
    bits = np.random.default_rng(0).integers(2, 9, (8, len(searchable.profile)))
    expected = make_evaluator("reference", searchable, loss_of_anything).losses(bits, super_batch(batches))
    evaluator = make_evaluator(name, searchable, loss_of_anything)
    np.testing.assert_allclose(evaluator.losses(bits, super_batch(batches)), expected, rtol=1e-5)
    assert any("unprepared" in text for text in evaluator.fallbacks)  # type: ignore[attr-defined]


def test_nan_in_a_later_minibatch_stays_nan() -> None:
    model = searchable_model(residual_network(), images())
    good, bad = image_batches(2)
    bad[0][0, 0, 0, 0] = float("nan")
    bits = np.full((3, len(model.profile)), 4)
    evaluator = make_evaluator("auto", model, classified)
    assert np.isfinite(evaluator.losses(bits, super_batch([good]))).all()
    assert np.isnan(evaluator.losses(bits, super_batch([good, bad]))).all()


def test_a_loss_may_need_gradients_of_its_inputs() -> None:
    searchable = gfb.make_searchable(Returning("plain"), torch.randn(2, 6), bits=(2, 8))
    searchable.calibrate([torch.randn(32, 6)])

    def adversarial(model: nn.Module, batch: Any) -> Tensor:
        x, labels = batch
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels), x)
        return nn.functional.cross_entropy(model(x.detach() + 0.1 * gradient.sign()), labels)

    batches = [(torch.randn(16, 6), torch.randint(0, 3, (16,)))]
    bits = np.random.default_rng(0).integers(2, 9, (4, len(searchable.profile)))
    expected = make_evaluator("reference", searchable, adversarial).losses(bits, super_batch(batches))
    found = make_evaluator("auto", searchable, adversarial).losses(bits, super_batch(batches))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_check_of_a_minibatch_draws_nothing_from_the_random_stream() -> None:
    model = searchable_model(residual_network(), images())
    (batch,) = image_batches(1)
    bits = np.full((1, len(model.profile)), 4)

    def noisy(candidate: nn.Module, batch: Any) -> Tensor:
        return classified(candidate, batch) + 1e-7 * torch.rand(())

    after = []
    for name in ("reference", "auto"):
        torch.manual_seed(0)
        make_evaluator(name, model, noisy).losses(bits, super_batch([batch]))
        after.append(torch.rand(1))
    assert torch.equal(*after)


def super_batch(batches: list[Any]) -> SuperBatch:
    return SuperBatch(batches, size=len(batches), kind="fixed", seed=0)
