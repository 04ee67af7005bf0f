"""Losses and metrics by name, for batches (inputs, targets)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfb_brevitas.evaluation.batches import Batches, device_of, moved, one_pass

Loss = Callable[[nn.Module, Any], Tensor]


def _cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def _mean_squared_error(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.mse_loss(model(inputs), targets)


LOSSES: dict[str, Loss] = {"cross_entropy": _cross_entropy, "mean_squared_error": _mean_squared_error}
METRICS = ("accuracy",)


def accuracy_on(batches: Batches) -> Callable[[nn.Module], float]:
    """A metric: the share of samples whose largest output is that of their label.

    Args:
        batches: Minibatches (inputs, labels).
    """

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        right = total = 0
        for batch in one_pass(batches, 0):
            inputs, labels = moved(batch, device_of(model))
            right += int((model(inputs).argmax(dim=1) == labels).sum())
            total += labels.numel()
        return right / max(total, 1)

    return accuracy
