"""Training by several processes is that of one."""

from __future__ import annotations

import logging
import math
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfb_brevitas.adapters.searchable import SearchableModel, make_searchable
from gfb_brevitas.distributed import current_world, in_all_processes
from gfb_brevitas.errors import DistributedError, NonFiniteLossError
from gfb_brevitas.search import TrainingConfig
from gfb_brevitas.search.checkpoint import model_state
from gfb_brevitas.search.training import Trainer
from tests.core.distributed.processes import in_processes

CLASSES = 3


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    inputs = [torch.randn(size, 2, 6, 6, generator=generator) for size in sizes]
    return [(x, x.mean(dim=(1, 2, 3)).mul(20).long().clamp(0, CLASSES - 1)) for x in inputs]


def convolutional() -> SearchableModel:
    """BatchNorm and dropout, with images and with features."""
    torch.manual_seed(0)
    module = nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(2, 6, 3, bias=False, weight_bit_width=4),
        nn.BatchNorm2d(6),
        qnn.QuantReLU(bit_width=4),
        nn.Dropout2d(0.1),
        nn.Flatten(),
        qnn.QuantLinear(96, 8, bias=False, weight_bit_width=4),
        nn.BatchNorm1d(8),
        nn.Dropout(0.1),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.QuantLinear(8, CLASSES, bias=True, weight_bit_width=4),
    )
    model = make_searchable(module, torch.zeros(2, 2, 6, 6))
    model.calibrate([x for x, _ in batches(16)])
    return model


class Losses:
    """Loss functions, which count samples."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.samples: list[int] = []

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch[:2]
        logits = model(x)
        if model.training:
            self.samples.append(len(x))
        if self.kind == "sum":
            return F.cross_entropy(logits, y, reduction="sum") / 20
        if self.kind == "weighted":
            return F.cross_entropy(logits, y, weight=torch.tensor([1.0, 5.0, 0.2]))
        if self.kind == "contrast":
            return (logits @ logits.T).softmax(dim=1).diagonal().log().mul(-0.1).mean()
        return F.cross_entropy(logits, y)


@in_all_processes
def trained(kind: str, data: list[Any], **settings: Any) -> tuple[Any, ...]:
    loss, model = Losses(kind), convolutional()
    config = TrainingConfig(
        **{"optimizer": "sgd", "learning_rate": 0.02, "gradient_clip_norm": 1.0, **settings}
    )
    trainer = Trainer(model, loss, config, epochs=2, seed=3)
    losses = [trainer.run_epoch(data, epoch).train_loss for epoch in range(2)]
    weights = {name: value.numpy() for name, value in model_state(model).items()}
    return losses, weights, loss.samples


def require_close(found: tuple[Any, ...], expected: tuple[Any, ...], tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        scale = max(1e-3, np.abs(value).max(initial=0))
        np.testing.assert_allclose(found[1][name], value, atol=tolerance * scale, err_msg=name)


def require_same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert found[0] == expected[0]
    assert all((found[1][name] == value).all() for name, value in expected[1].items())


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam", "weight_decay": 1e-3}], ids=str)
def test_training_is_that_of_one_process(settings: dict[str, Any]) -> None:
    data = batches(16, 7, 16, 9)
    expected = trained("mean", data, **settings)
    answers = in_processes(trained, "mean", data, **settings)
    require_close(answers[0], expected)
    for rank, (_, weights, samples) in enumerate(answers):
        assert all((weights[name] == value).all() for name, value in answers[0][1].items())
        assert samples == [[8, 3, 8, 4], [8, 4, 8, 5]][rank] * 2


@pytest.mark.parametrize("kind", ["sum", "weighted", "contrast"])
def test_a_loss_that_is_not_a_mean_over_samples_sees_whole_batches(kind: str) -> None:
    data = batches(12, 12)
    expected = trained(kind, data)
    for losses, weights, samples in in_processes(trained, kind, data):
        assert samples == [12, 12] * 2
        require_same((losses, weights), expected)


def test_training_need_not_be_shared_out() -> None:
    data = batches(12, 9)
    expected = trained("mean", data)
    for losses, weights, samples in in_processes(trained, "mean", data, size=3, data_parallel=False):
        assert samples == [12, 9] * 2
        require_same((losses, weights), expected)


def test_batches_that_cannot_be_divided_are_seen_whole() -> None:
    data = [(*batch, "a name") for batch in batches(12, 12)]
    expected = trained("mean", data)
    for losses, weights, samples in in_processes(trained, "mean", data):
        assert samples == [12, 12] * 2
        require_same((losses, weights), expected)


def messages(kind: str) -> list[str]:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("gfb_brevitas").addHandler(handler)
    trained(kind, batches(8))
    return heard


def test_it_is_said_once_that_batches_are_not_divided() -> None:
    first, second = in_processes(messages, "sum")
    assert len(first) == 1 and "loss of a batch is not the mean" in first[0]
    assert second == []


@in_all_processes
def with_unused_parameters() -> list[bool]:
    model = convolutional()
    model.model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    trainer = Trainer(
        model,
        Losses("mean"),
        TrainingConfig(optimizer="sgd", learning_rate=0.1, weight_decay=0.1),
        epochs=1,
        seed=0,
    )
    trainer.run_epoch(batches(8), 0)
    unused = model.model.get_parameter("unused")
    return [unused.grad is None, bool((unused == 1).all())]


def test_a_parameter_without_a_gradient_stays_without_one() -> None:
    assert in_processes(with_unused_parameters) == [[True, True]] * 2


@in_all_processes
def going_wrong(how: str) -> None:
    rank = current_world().rank

    def loss(model: nn.Module, batch: Any) -> Tensor:
        value = F.cross_entropy(model(batch[0]), batch[1])
        if model.training and rank == 1:
            if how == "error":
                raise OverflowError("The second process is full.")
            return value * math.nan if how == "nan" else value
        return value

    data = batches(8, 8)[: 2 - rank] if how == "fewer" else batches(8 + rank if how == "other" else 8, 8)
    Trainer(convolutional(), loss, TrainingConfig(), epochs=1, seed=0).run_epoch(data, 0)


def test_a_loss_that_is_not_finite_in_one_process_ends_all() -> None:
    for error in in_processes(going_wrong, "nan"):
        assert isinstance(error, NonFiniteLossError) and "epoch 1, batch 1" in str(error)


def test_an_error_between_the_layers_of_one_process_ends_all() -> None:
    first, second = in_processes(going_wrong, "error")
    assert isinstance(second, OverflowError)
    assert isinstance(first, DistributedError) and "process 1 of 2 with OverflowError: The second" in str(
        first
    )


@pytest.mark.parametrize(
    "how, message", [("other", "first batch of an epoch.*DistributedSampler"), ("fewer", "different places")]
)
def test_different_batches_are_noticed(how: str, message: str) -> None:
    for error in in_processes(going_wrong, how):
        with pytest.raises(DistributedError, match=message):
            raise error
