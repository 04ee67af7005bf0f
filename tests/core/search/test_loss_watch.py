"""Training that undoes what a trained model knew is told early; training that does not is left alone."""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.search import RecordedRun, SearchConfig, TrainingConfig
from gfb_brevitas.search.loss_watch import LossReference, LossWatch, measured_reference
from tests.core.search.small_problem import CLASSES, accuracy, loader, loss, network, points, run, searchable

DESTRUCTIVE = TrainingConfig(optimizer="sgd", learning_rate=30.0, schedule="constant")
SHORT: dict[str, Any] = {
    "rounds": 1,
    "steps_per_round": 1,
    "evaluations_per_step": 12,
    "epochs_per_round": 2,
    "super_batch_size": 2,
}


def trained() -> nn.Module:
    model = network(hidden=24)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    data = points(512)
    for _ in range(120):
        optimizer.zero_grad()
        F.cross_entropy(model(data.tensors[0]), data.tensors[1]).backward()
        optimizer.step()
    return model.eval()


def fitted(training: TrainingConfig | None, **changes: Any) -> gfb.SearchResult:
    """A run of 48 minibatches an epoch from a trained network."""
    return run(
        searchable(trained()),
        train_batches=loader(1536),
        training=training,
        search=SearchConfig(**{**SHORT, **changes}),
    )


def test_a_run_that_destroys_a_trained_model_says_so_in_its_first_epoch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        result = fitted(DESTRUCTIVE)
    first = result.history.epochs[0]
    assert "risen from" in first.warning and "Lower the learning rate" in first.warning
    assert result.summary()["warnings"] == [first.warning]  # once is enough
    assert [r.message for r in caplog.records if "risen from" in r.message] == [first.warning]
    assert first.loss_before < 0.9 * first.constant_loss
    assert first.constant_loss == pytest.approx(math.log(CLASSES), rel=0.1)


def test_the_defaults_keep_what_a_trained_model_knows() -> None:
    result = fitted(None)
    assert not result.history.warnings
    assert all(epoch.train_loss < 0.6 * math.log(CLASSES) for epoch in result.history.epochs)
    assert result.metric >= accuracy(trained()) - 0.05


def test_the_run_can_stop_there(tmp_path: Path) -> None:
    with pytest.raises(
        gfb.LossAtChanceError, match=r"risen from .* stops here because of `at_chance='stop'`"
    ):
        run(
            searchable(trained()),
            train_batches=loader(1536),
            training=DESTRUCTIVE,
            search=SearchConfig(**SHORT, at_chance="stop"),
            run_folder=tmp_path / "run",
        )
    assert "LossAtChanceError" in str(RecordedRun.load(tmp_path / "run").status)


def test_an_untrained_model_that_learns_is_left_alone() -> None:
    result = run(searchable(), search=SearchConfig(**{**SHORT, "epochs_per_round": 12}))
    assert not result.history.warnings


def test_a_model_that_learns_nothing_is_told_after_a_while() -> None:
    inputs = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (512,), generator=torch.Generator().manual_seed(1))
    batches = list(zip(inputs.split(8), labels.split(8), strict=True))
    slow = TrainingConfig(learning_rate=1e-9, schedule="constant")
    result = run(
        searchable(),
        train_batches=batches,
        training=slow,
        search=SearchConfig(**{**SHORT, "epochs_per_round": 5}),
    )
    (warning,) = result.history.warnings
    assert "learns nothing" in warning and result.history.epochs[3].warning == warning


def test_measuring_the_reference_changes_nothing_of_the_model() -> None:
    model = searchable(trained())
    before, mode = copy.deepcopy(model.state_dict()), model.training
    state = torch.get_rng_state()
    found = measured_reference(model, loss, loader(), seed=0)
    assert found == measured_reference(model, loss, loader(), seed=0)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert model.training == mode and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "outputs, objective",
    [
        (lambda y: y, F.cross_entropy),
        (lambda y: y.log_softmax(1), F.nll_loss),
        (lambda y: {"logits": (y, [y])}, lambda out, labels: F.cross_entropy(out["logits"][1][0], labels)),
    ],
    ids=["logits", "log-probabilities", "nested"],
)
def test_what_the_same_answer_for_every_sample_gives(outputs: Any, objective: Any) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = trained()
            self.extra = 3

        def forward(self, x: torch.Tensor) -> Any:
            return outputs(self.inner(x))

    def own_loss(model: nn.Module, batch: Any) -> torch.Tensor:
        assert model.extra == 3  # what a loss may read of a model
        value: torch.Tensor = objective(model(batch[0]), batch[1])
        return value

    found = measured_reference(Wrapped(), own_loss, loader(), seed=0)
    assert 0.9 * math.log(CLASSES) < found.constant < 1.6 * math.log(CLASSES)
    assert found.before < 0.5 * found.constant


def test_of_regression_it_is_the_variance() -> None:
    target = torch.linspace(-1, 1, 64)[:, None] + 5
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(5.0)
    found = measured_reference(
        model, lambda m, batch: F.mse_loss(m(batch[0]), batch[1]), [(target - 5, target)], seed=0
    )
    assert found.before == 0.0
    assert found.constant == pytest.approx(target.var(correction=0).item(), rel=1e-4)


def test_where_it_cannot_be_known_nothing_is_said() -> None:
    def strange(model: nn.Module, batch: Any) -> torch.Tensor:
        assert type(model).__name__ == "SearchableModel"
        return loss(model, batch)

    assert math.isnan(measured_reference(searchable(), strange, loader(), seed=0).constant)
    watch = LossWatch(LossReference())
    watch.after_batch([100.0] * 400)
    watch.after_epoch([100.0] * 400, 5)
    assert not watch.told


@pytest.mark.parametrize("losses", [[1.0] * 400, [2.2, 0.5] * 200, [2.3] * 30 + [0.1] * 30])
def test_a_loss_below_chance_is_no_rise(losses: list[float]) -> None:
    watch = LossWatch(LossReference(before=0.1, constant=2.3))
    for count in range(1, len(losses) + 1):
        watch.after_batch(losses[:count])
    watch.after_epoch(losses, 0)
    assert not watch.told
