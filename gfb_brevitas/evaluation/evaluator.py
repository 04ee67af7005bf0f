"""Evaluators: from bit widths to losses, with the weights fixed."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation.batches import LossFunction, device_of, moved
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.evaluation.super_batch import Minibatch, SuperBatch
from gfb_brevitas.space import Bits, Vector

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


class Evaluator(Protocol):
    """Computes the losses of candidates. One is made for each gradient-free step."""

    def losses(self, bits: Bits, super_batch: SuperBatch) -> Vector:
        """Mean loss of every candidate over the minibatches of a super-batch.

        Args:
            bits: Shape ``(P, quantizers)``, bit widths, columns as in the model's profile.
            super_batch: The minibatches; each counts the same.

        Returns:
            Shape ``(P,)``, float64. NaN or infinite where a candidate's loss is.
        """


EvaluatorFactory = Callable[["SearchableModel", LossFunction, BatchNormStatistics], Evaluator]
_factories: dict[str, EvaluatorFactory] = {}


def register_evaluator(name: str, factory: EvaluatorFactory) -> None:
    """Make an evaluator available under a name, as ``SearchConfig(evaluator=name)``.

    Args:
        name: The name; an existing one is replaced.
        factory: Called with the model, the loss function and the statistics that BatchNorm is to use,
            once per gradient-free step.
    """
    _factories[name] = factory


def evaluator_names() -> tuple[str, ...]:
    """The registered names."""
    return tuple(sorted(_factories))


def make_evaluator(
    name: str, model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics = "running"
) -> Evaluator:
    """The evaluator registered under ``name``.

    Raises:
        ConfigurationError: If there is none.
    """
    if name not in _factories:
        raise ConfigurationError(
            f"There is no evaluator {name!r}. There are: {', '.join(evaluator_names())}. "
            "Add one with register_evaluator."
        )
    return _factories[name](model, loss, batchnorm)


class ReferenceEvaluator:
    """Runs the model itself: the yardstick of every faster evaluator.

    The model runs in evaluation mode without gradients; its allocation and modes are restored
    afterwards. A candidate's loss on a minibatch is computed once and kept while the minibatch stays in
    the super-batch, so equal candidates cost nothing, and in a moving super-batch a candidate that comes
    back costs one minibatch [ours]. This takes a loss that is repeatable in evaluation mode. Kept losses
    are dropped when a parameter or buffer has changed.

    Args:
        model: The model.
        loss: ``loss(model, batch)``, a scalar tensor.
        batchnorm: Whether BatchNorm uses its running statistics or those of the minibatch.
    """

    def __init__(
        self, model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics = "running"
    ) -> None:
        self.model, self.loss, self.batchnorm = model, loss, batchnorm
        self._device = device_of(model)
        self._known: dict[bytes, dict[int, float]] = {}
        self._weights: tuple[tuple[int, int], ...] = ()

    def losses(self, bits: Bits, super_batch: SuperBatch) -> Vector:
        """See :meth:`Evaluator.losses`.

        Raises:
            ConfigurationError: If ``bits`` has another shape, or the loss is not a scalar.
        """
        rows = self._checked(bits)
        self._forget_stale(super_batch)
        before = self.model.space.bits(self.model.allocation)
        try:
            with inference_only(self.model, self.batchnorm):
                values = [self._row_loss(row, super_batch.minibatches) for row in rows]
        finally:
            self.model.set_bits(before)
        return np.array(values, dtype=np.float64)

    def _checked(self, bits: Bits) -> Bits:
        rows = np.ascontiguousarray(bits, dtype=np.int64)
        if rows.ndim != 2 or rows.shape[1] != len(self.model.profile):
            raise ConfigurationError(
                f"Candidates must have the shape (candidates, {len(self.model.profile)}); got {rows.shape}."
            )
        return rows

    def _forget_stale(self, super_batch: SuperBatch) -> None:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        weights = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        if weights != self._weights:
            self._known, self._weights = {}, weights
        held = set(super_batch.version)
        for row, kept in list(self._known.items()):
            self._known[row] = {serial: kept[serial] for serial in held & kept.keys()}
            if not self._known[row]:
                del self._known[row]

    def _row_loss(self, row: Bits, minibatches: tuple[Minibatch, ...]) -> float:
        known = self._known.setdefault(row.tobytes(), {})
        missing = {m.serial: m for m in minibatches if m.serial not in known}
        if missing:
            self.model.set_bits(row)
            losses = [self._batch_loss(minibatch.data) for minibatch in missing.values()]
            # One transfer for all minibatches: a GPU is not made to wait for each.
            known.update(zip(missing, torch.stack(losses).tolist(), strict=True))
        with np.errstate(all="ignore"):
            return float(np.mean([known[minibatch.serial] for minibatch in minibatches]))

    def _batch_loss(self, batch: Any) -> torch.Tensor:
        return scalar_loss(self.loss(self.model, moved(batch, self._device)))


def scalar_loss(value: Any) -> torch.Tensor:
    """A loss as a tensor without dimensions.

    Raises:
        ConfigurationError: If it is not one number.
    """
    if not isinstance(value, torch.Tensor | Real):
        raise ConfigurationError(
            "loss(model, batch) must return one number, a tensor that depends on the model's parameters; "
            f"got {reprlib.repr(value)}."
        )
    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if tensor.is_complex():
        raise ConfigurationError(f"loss(model, batch) must return a real number; got {tensor.dtype}.")
    if tensor.numel() != 1:
        raise ConfigurationError(
            f"loss(model, batch) must return one number; got a tensor of shape {tuple(tensor.shape)}. "
            "Reduce it, e.g. with .mean()."
        )
    return tensor.reshape(())


def mean_loss(model: nn.Module, loss: LossFunction, batches: Any) -> float:
    """Mean loss over an iterable of batches, each counting the same, in evaluation mode."""
    device = device_of(model)
    with inference_only(model):
        losses = [scalar_loss(loss(model, moved(batch, device))) for batch in batches]
    return float(np.mean(torch.stack(losses).tolist())) if losses else float("nan")


register_evaluator("reference", ReferenceEvaluator)
