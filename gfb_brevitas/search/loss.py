"""The user's loss function, with an error that says what the batch was when the two do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_brevitas.evaluation.batches import Batch, LossFunction

_SHOWN = 6


class FirstCallChecked:
    """A loss function that explains an error of its first call.

    A loss that fails on the first batch that it gets fits neither these batches nor this model. Once it
    has worked, errors pass as they are.

    Args:
        loss: ``loss(model, batch)``.

    Raises:
        ConfigurationError: If it cannot be called.
    """

    def __init__(self, loss: LossFunction) -> None:
        if not callable(loss):
            raise ConfigurationError(f"`loss` must be a function loss(model, batch); got {loss!r}.")
        self._loss = loss
        self._has_worked = False

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch.

        Raises:
            ConfigurationError: If the first call fails.
        """
        if self._has_worked:
            return self._loss(model, batch)
        try:
            value = self._loss(model, batch)
        except GfbError:
            raise
        except Exception as error:
            raise ConfigurationError(
                "loss(model, batch) must work on every batch of the data; on the first one, "
                f"{described_batch(batch)}, it raised {type(error).__name__}: {error}. Check which parts of "
                "the batch the loss passes to the model, and their shapes and types."
            ) from error
        self._has_worked = True
        return value


def described_batch(batch: Batch) -> str:
    """What a batch consists of, e.g. ``(Tensor (32, 8) float32, Tensor (32,) int64)``."""
    if isinstance(batch, torch.Tensor):
        return f"Tensor {tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, tuple | list):
        return f"({_listed([described_batch(item) for item in batch])})"
    if isinstance(batch, Mapping):
        return f"{{{_listed([f'{key!r}: {described_batch(item)}' for key, item in batch.items()])}}}"
    return type(batch).__name__


def _listed(items: list[Any]) -> str:
    more = ", ..." if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
