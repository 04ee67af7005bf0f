"""Gradients of a batch, by one process or by several that each compute those of a part of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from gfb_brevitas.distributed.batches import Part, batch_digest, divided, part_of
from gfb_brevitas.distributed.whole_batch import WholeBatchLayers, reason_to_stay_whole
from gfb_brevitas.distributed.world import World
from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_brevitas.evaluation.batches import Batch, LossFunction
from gfb_brevitas.evaluation.evaluator import scalar_loss
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.evaluation.randomness import RandomStream

SAME_LOSS = 1e-3
"""Largest relative difference between a batch's loss and the mean of its parts' [ours]."""

_logger = logging.getLogger(__name__)
_ADVICE = (
    "All processes must iterate over the same batches; each takes its part of every batch. Do not use a "
    "DistributedSampler, and draw with the global random generators, which are seeded."
)


class Gradients(Protocol):
    """Computes the gradients of the loss of batches."""

    def epoch(self) -> AbstractContextManager[None]:
        """A block around the batches of an epoch."""

    def __call__(self, batch: Batch) -> float:
        """Set the gradients of a batch and return its loss, which need not be finite.

        Raises:
            ConfigurationError: If the loss is not one number that depends on the parameters.
        """


def make_gradients(
    model: nn.Module,
    loss: LossFunction,
    parameters: list[nn.Parameter],
    world: World,
    *,
    divides: bool = True,
) -> Gradients:
    """Gradients computed by the processes of ``world``.

    Args:
        model: The model.
        loss: ``loss(model, batch)``, a scalar tensor with gradients.
        parameters: Whose gradients are wanted.
        world: The processes.
        divides: Whether batches may be divided among them.
    """
    if world.size == 1:
        return LocalGradients(model, loss)
    return SharedGradients(model, loss, parameters, world, divides=divides)


class LocalGradients:
    """Gradients computed by one process."""

    def __init__(self, model: nn.Module, loss: LossFunction) -> None:
        self.model, self.loss = model, loss

    def epoch(self) -> AbstractContextManager[None]:
        """See :meth:`Gradients.epoch`."""
        return nullcontext()

    def __call__(self, batch: Batch) -> float:
        """See :class:`Gradients`."""
        return float(_propagated(self.loss(self.model, batch)))


class SharedGradients:
    """Gradients of the loss of whole batches, computed in parts.

    A batch is divided where that changes nothing: where all of its tensors have the samples in their first
    dimension, and the loss is their mean. This is tried on the first batch of every epoch, in evaluation
    mode. Where the losses differ (a sum, a mean with weights, samples that are compared with each other),
    every process computes the whole batch, and the first one's gradients count: they are those of one
    process, bit for bit. Those of parts are equal to them but for the last digits.

    Args:
        model: The model.
        loss: ``loss(model, batch)``, a scalar tensor with gradients.
        parameters: Whose gradients are wanted.
        world: The processes.
        divides: Whether batches may be divided at all.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        parameters: list[nn.Parameter],
        world: World,
        *,
        divides: bool = True,
    ) -> None:
        self.model, self.loss, self.parameters, self.world = model, loss, parameters, world
        self._may_divide = divides
        self._layers = WholeBatchLayers(model, world)
        self._divides: bool | None = None
        self._is_first = True
        self._told: set[str] = set()

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Prepare the model for the batches of an epoch, inside the block."""
        reason = reason_to_stay_whole(self.model) if self._may_divide else None
        if reason is not None:
            self._tell(reason)
        self._divides = None if self._may_divide and reason is None else False
        self._is_first = True
        with self._layers.installed():
            yield
        self.world.meet("end of an epoch")
        self.world.broadcast_tensors("buffers", list(self.model.buffers()))

    def __call__(self, batch: Batch) -> float:
        """Set the gradients of a batch and return its loss.

        Raises:
            GfbError: If the computation fails in any process: the same error in all.
            DistributedError: If the processes have different batches.
        """
        part = self._part_of(batch)
        if part is None:
            return self._of_first(_propagated(self.loss(self.model, batch)))
        with self._layers.dividing(part):
            # Weighted before, so that gradients of the shared statistics are those of the whole loss.
            return self._sum(_propagated(self.loss(self.model, divided(batch, part)), part.weight))

    def _of_first(self, loss: Tensor) -> float:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.world.broadcast_tensors("gradients of a whole batch", [loss, *gradients])
        return float(loss)

    def _sum(self, loss: Tensor) -> float:
        """Add up gradients and losses in one go; a parameter without a gradient anywhere stays so."""
        given = [parameter.grad is not None for parameter in self.parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        head = torch.tensor([0.0, *given], dtype=torch.float32, device=loss.device)
        head[0] = loss
        flat = torch.cat([head, *(g.reshape(-1).to(loss.device) for g in gradients)])
        self.world.meet("gradients of a batch")
        parts = self.world.sum("gradients", flat).split([len(head), *(g.numel() for g in gradients)])
        counts: list[float]
        value: float
        value, *counts = parts[0].tolist()
        for parameter, count, part in zip(self.parameters, counts, parts[1:], strict=True):
            if count:
                parameter.grad = part.view_as(parameter).to(parameter)
        return value

    def _part_of(self, batch: Batch) -> Part | None:
        if self._is_first:
            self.world.require_equal("first batch of an epoch", batch_digest(batch), _ADVICE)
            self._is_first = False
        if self._divides is False:
            return None
        part = part_of(batch, self.world.rank, self.world.size)
        if part is None:
            self._tell("a batch cannot be divided, for it is not of tensors with the samples first")
        elif self._divides is None:
            self._divides = self._is_mean_of_parts(batch, part)
            if not self._divides:
                self._tell("the loss of a batch is not the mean of the losses of its parts")
        return part if self._divides else None

    def _is_mean_of_parts(self, batch: Batch, part: Part) -> bool:
        with RandomStream(0).active(), inference_only(self.model):
            whole = float(scalar_loss(self.loss(self.model, batch)))
            with self._layers.dividing(part):
                own = self._loss_of_part(divided(batch, part))
        sums = torch.tensor([whole / self.world.size, own * part.weight], dtype=torch.float64)
        whole, mean = self.world.sum("losses of a batch and its parts", sums).tolist()
        return math.isfinite(whole) and abs(whole - mean) <= SAME_LOSS * max(abs(whole), 1e-6)

    def _loss_of_part(self, batch: Batch) -> float:
        try:
            return float(scalar_loss(self.loss(self.model, batch)))
        except GfbError:
            raise
        except Exception as error:  # of a model or loss that is made for one number of samples
            _logger.info("The loss of a part of a batch: %s: %s", type(error).__name__, error)
            return math.nan

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            _logger.warning("Every process trains on whole batches, which does not save time: %s.", reason)


def _propagated(value: object, weight: float = 1.0) -> Tensor:
    """Set the gradients of a loss times a weight, and return that product without gradients."""
    loss = scalar_loss(value)
    if not loss.requires_grad:
        raise ConfigurationError(
            "loss(model, batch) must depend on the model's parameters with gradients; it returned a "
            "tensor without. Do not detach it or turn gradients off."
        )
    loss = loss if weight == 1.0 else loss * weight
    loss.backward()
    return loss.detach()
