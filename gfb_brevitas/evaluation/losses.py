"""Losses and metrics by name, for batches (inputs, targets)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, unknown_name
from gfb_brevitas.evaluation.batches import Batches, device_of, moved, one_pass

Loss = Callable[[nn.Module, Any], Tensor]
Metric = Callable[[nn.Module], float]


def _cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


def _mean_squared_error(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch
    return F.mse_loss(model(inputs), targets)


LOSSES: dict[str, Loss] = {"cross_entropy": _cross_entropy, "mean_squared_error": _mean_squared_error}
METRICS = ("accuracy",)


def loss_from(loss: Loss | str) -> Loss:
    """A loss function, given itself or by its name.

    Raises:
        ConfigurationError: If there is none of that name, or it cannot be called.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ConfigurationError(
                unknown_name(
                    "loss",
                    loss,
                    LOSSES,
                    " Or give a function loss(model, batch); in a configuration, module:function.",
                )
            )
        return LOSSES[loss]
    if not callable(loss):
        raise ConfigurationError(f"`loss` must be a function loss(model, batch) or a name; got {loss!r}.")
    return loss


def metric_from(
    metric: Metric | str | None, batches: Batches | None, setting: str, data: str
) -> Metric | None:
    """A metric, given itself or by its name, which is then computed on ``batches``.

    Args:
        metric: What was given as ``setting``.
        batches: What was given as ``data``.
        setting: Name of the argument, for messages.
        data: Likewise.

    Raises:
        ConfigurationError: If there is none of that name, or it has no data.
    """
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        way_out = f" Or give a function {setting}(model); in a configuration, module:function."
        raise ConfigurationError(unknown_name("metric", metric, METRICS, way_out))
    if batches is None:
        raise ConfigurationError(f"The metric {metric!r} needs `{data}`.")
    return accuracy_on(batches)


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
