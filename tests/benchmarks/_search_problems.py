"""Trained networks with a budget, as search problems: what the search benchmarks share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from digits import digits_data, digits_model
from experiment import cross_entropy
from fashion_mnist import ResidualBlock, fashion_data, fashion_model

import gfb_brevitas as gfb
from gfb_brevitas.constraints import Constraints
from gfb_brevitas.evaluation.evaluator import make_evaluator
from gfb_brevitas.evaluation.super_batch import SuperBatch
from gfb_brevitas.space import Bits, Vector

Samples = tuple[Tensor, Tensor]


def deep_model() -> nn.Module:
    """A stem, seven residual blocks and a linear layer, 46 quantizers; 14x14 images."""
    blocks = [(8, 8, 1), (8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(return_quant_tensor=True),
        *(ResidualBlock(*block) for block in blocks),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(32 * 2 * 2, 10, bias=True),
    )


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """A network, how it is trained, and the problem made of it.

    Attributes:
        make_model: Makes the Brevitas model.
        load: Loads training samples.
        epochs: Epochs of training, at 4 bits.
        bits: The budgets are those of so many uniform bits.
        batches: Minibatches of the super-batch.
        batch_size: Samples of a minibatch.
    """

    make_model: Callable[[], nn.Module]
    load: Callable[[], Samples]
    epochs: int
    bits: int
    batches: int
    batch_size: int = 128


def fashion_samples(samples: int = 6_000) -> Samples:
    """Training samples of Fashion-MNIST, from the folder that GFB_FASHION_MNIST names."""
    return fashion_data(Path(os.environ.get("GFB_FASHION_MNIST", "data/fashion_mnist")), samples, 1).train


def small_fashion_samples() -> Samples:
    """As :func:`fashion_samples`, of half the resolution."""
    images, labels = fashion_samples()
    return F.avg_pool2d(images, 2), labels


NETWORKS: dict[str, NetworkSettings] = {
    "digits CNN": NetworkSettings(
        make_model=digits_model, load=lambda: digits_data().train, epochs=20, bits=2, batches=4
    ),
    "Fashion-MNIST residual net": NetworkSettings(
        make_model=fashion_model, load=fashion_samples, epochs=5, bits=2, batches=2
    ),
    "residual net of 46 quantizers": NetworkSettings(
        make_model=deep_model, load=small_fashion_samples, epochs=5, bits=3, batches=2, batch_size=64
    ),
}


def trained(settings: NetworkSettings, seed: int = 0, *, epochs: int | None = None) -> gfb.SearchableModel:
    """The network, trained at 4 bits from a fixed seed."""
    torch.manual_seed(seed)
    images, labels = settings.load()
    model = gfb.make_searchable(settings.make_model(), images[:2])
    model.set_allocation(model.space.uniform(4))
    model.calibrate([(images[:256], labels[:256])])
    epochs = settings.epochs if epochs is None else epochs
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs))
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            cross_entropy(model.train(), (images[chosen], labels[chosen])).backward()
            optimizer.step()
        schedule.step()
    return model


@dataclass
class Problem:
    """Loss plus penalty of allocations on one super-batch; every allocation is evaluated once."""

    model: gfb.SearchableModel
    constraints: Constraints
    super_batch: SuperBatch
    start: Bits
    evaluator: Any
    known: dict[bytes, float] = field(default_factory=dict)

    def losses(self, bits: Bits) -> Vector:
        """Losses; shape ``(P,)``."""
        new = {row.tobytes(): row for row in bits if row.tobytes() not in self.known}
        if new:
            losses = self.evaluator.losses(np.stack(list(new.values())), self.super_batch)
            self.known |= dict(zip(new, np.nan_to_num(losses, nan=1e3).tolist(), strict=True))
        return np.array([self.known[row.tobytes()] for row in bits])

    def values(self, bits: Bits) -> Vector:
        """Objective values; shape ``(P,)``."""
        return self.losses(bits) + self.constraints.penalty(bits)


def problem(settings: NetworkSettings, model: gfb.SearchableModel) -> Problem:
    """The search problem of a trained network."""
    images, labels = settings.load()
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    parts = chosen.split(settings.batch_size)[: settings.batches]
    return Problem(
        model=model,
        constraints=Constraints(model.space, gfb.paper_budgets(settings.bits, rho=20.0)),
        super_batch=SuperBatch.of([(images[part], labels[part]) for part in parts]),
        start=model.space.bits(model.space.uniform(settings.bits)),
        evaluator=make_evaluator("auto", model, cross_entropy, "batch"),
    )
