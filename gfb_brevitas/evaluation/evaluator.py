"""Evaluators: from bit widths to losses, with the weights fixed."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from gfb_brevitas.errors import ConfigurationError, unknown_name
from gfb_brevitas.evaluation.batches import LossFunction, device_of, moved
from gfb_brevitas.evaluation.known_losses import KnownLosses, checked_rows
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.evaluation.randomness import RandomStream, reseed
from gfb_brevitas.evaluation.super_batch import Minibatch, SuperBatch
from gfb_brevitas.space import Bits, Vector

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


class Evaluator(Protocol):
    """Computes the losses of candidates. One is made for each gradient-free step.

    A loss that draws random numbers draws the same ones for every candidate on a minibatch (its ``seed``),
    whichever candidates came before [ours]: so a step that was killed goes on with equal losses.
    """

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


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What an evaluator will have to do.

    Attributes:
        candidates: Evaluations of a gradient-free step.
        steps: Gradient-free steps of the whole run; between them the weights change.
        super_batch: The first super-batch of the step.
    """

    candidates: int
    steps: int
    super_batch: SuperBatch


@runtime_checkable
class Chooser(Protocol):
    """An :data:`EvaluatorFactory` that chooses by what is planned, where that is known."""

    def planned(
        self, model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics, plan: Planned
    ) -> Evaluator:
        """The evaluator for a step. It must be the same in every process and when a run is resumed."""


def make_evaluator(
    name: str,
    model: SearchableModel,
    loss: LossFunction,
    batchnorm: BatchNormStatistics = "running",
    plan: Planned | None = None,
) -> Evaluator:
    """The evaluator registered under ``name``; one that chooses by a plan where it is given one.

    Raises:
        ConfigurationError: If there is none.
    """
    if name not in _factories:
        way_out = " Add one with register_evaluator."
        raise ConfigurationError(unknown_name("evaluator", name, evaluator_names(), way_out))
    factory = _factories[name]
    if plan is not None and isinstance(factory, Chooser):
        return factory.planned(model, loss, batchnorm, plan)
    return factory(model, loss, batchnorm)


def account_of(evaluator: Evaluator, name: str) -> str:
    """What an evaluator says about itself (``account``): what runs, and why nothing faster; else its name."""
    return str(getattr(evaluator, "account", name))


class ReferenceEvaluator:
    """Runs the model itself: the yardstick of every faster evaluator.

    The model runs in evaluation mode without gradients; its allocation and modes are restored
    afterwards. A candidate's loss on a minibatch is computed once (see :class:`KnownLosses`).

    Args:
        model: The model.
        loss: ``loss(model, batch)``, a scalar tensor.
        batchnorm: Whether BatchNorm uses its running statistics or those of the minibatch.
        reason: Why nothing faster is used.
    """

    def __init__(
        self,
        model: SearchableModel,
        loss: LossFunction,
        batchnorm: BatchNormStatistics = "running",
        *,
        reason: str = "",
    ) -> None:
        self.model, self.loss, self.batchnorm = model, loss, batchnorm
        self._reason = reason
        self._device = device_of(model)
        self._known = KnownLosses(model)

    @property
    def account(self) -> str:
        """What runs, in words, and why nothing faster."""
        return f"the model itself; {self._reason}" if self._reason else "the model itself"

    def losses(self, bits: Bits, super_batch: SuperBatch) -> Vector:
        """See :meth:`Evaluator.losses`.

        Raises:
            ConfigurationError: If ``bits`` has another shape, or the loss is not a scalar.
        """
        rows = checked_rows(bits, len(self.model.profile))
        self._known.refresh(super_batch)
        before = self.model.space.bits(self.model.allocation)
        try:
            with inference_only(self.model, self.batchnorm), RandomStream(0).active():
                for row in rows:
                    self._evaluate(row, super_batch)
        finally:
            self.model.set_bits(before)
        return self._known.means(rows, super_batch)

    def _evaluate(self, row: Bits, super_batch: SuperBatch) -> None:
        missing = self._known.missing(row, super_batch)
        if not missing:
            return
        self.model.set_bits(row)
        losses = [self._batch_loss(minibatch) for minibatch in missing]
        # One transfer for all minibatches: a GPU is not made to wait for each.
        for minibatch, loss in zip(missing, torch.stack(losses).tolist(), strict=True):
            self._known.add(row, minibatch, loss)

    def _batch_loss(self, minibatch: Minibatch) -> torch.Tensor:
        reseed(minibatch.seed)
        return scalar_loss(self.loss(self.model, moved(minibatch.data, self._device)))


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
