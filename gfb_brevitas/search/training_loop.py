"""Training by the user's own code: plain PyTorch, Lightning, Accelerate or anything else.

A training loop is any object with the three methods of :class:`TrainingLoop`. A run calls it where it would
train an epoch itself, keeps its state in the checkpoints, and checks what it leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation.batches import Batch, LossFunction
from gfb_brevitas.search.config import TrainingConfig
from gfb_brevitas.search.training import EpochOutcome

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

METHODS = ("run_epoch", "state_dict", "load_state_dict")


@dataclass(frozen=True, kw_only=True)
class TrainingEpoch:
    """The epoch that a training loop is to train.

    Attributes:
        index: Epoch of the run, from 0, pretraining included.
        total: All epochs of the run: what a learning rate schedule spans.
        batches: One pass over the run's ``train_batches``, as they come, not moved to a device. Iterating
            again gives the same pass.
        loss: The run's ``loss(model, batch)``.
        seed: Differs between epochs, and repeats when the epoch is repeated. For random generators other
            than the global ones of torch, NumPy and Python, which start from it already.
    """

    index: int
    total: int
    batches: Iterable[Batch]
    loss: LossFunction
    seed: int


@runtime_checkable
class TrainingLoop(Protocol):
    """What :func:`gfb_brevitas.fit` takes as ``training`` instead of a ``TrainingConfig``.

    Example:
        >>> import torch
        >>> class Plain:
        ...     def __init__(self, model):
        ...         self.optimizer = torch.optim.AdamW(model.parameters())
        ...
        ...     def run_epoch(self, model, epoch):
        ...         losses = []
        ...         for batch in epoch.batches:
        ...             self.optimizer.zero_grad()
        ...             loss = epoch.loss(model, batch)
        ...             loss.backward()
        ...             self.optimizer.step()
        ...             losses.append(loss.item())
        ...         return sum(losses) / len(losses)
        ...
        ...     def state_dict(self):
        ...         return {"optimizer": self.optimizer.state_dict()}
        ...
        ...     def load_state_dict(self, state):
        ...         self.optimizer.load_state_dict(state["optimizer"])
        >>> isinstance(Plain(torch.nn.Linear(2, 2)), TrainingLoop)
        True
    """

    def run_epoch(self, model: SearchableModel, epoch: TrainingEpoch) -> float | EpochOutcome:
        """Train for one epoch.

        Args:
            model: The model of the run, in training mode, at the bit widths that the search has chosen.
                Its parameters and buffers may change; widths, modules, shapes and names stay.
            epoch: Which epoch, and the data.

        Returns:
            The mean training loss; as an ``EpochOutcome`` to give the learning rate as well.
        """

    def state_dict(self) -> Mapping[str, Any]:
        """All that an epoch leaves to the next one, apart from the model: optimizers, schedulers, scalers.

        Dicts, lists and tuples of tensors, numbers, strings and ``None``. Called after every unit of a run
        that has a folder.
        """

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``; the model has its weights back already."""


def require_training(training: object) -> None:
    """Check what the user passed as ``training``.

    Raises:
        ConfigurationError: If it is neither settings nor a training loop.
    """
    if isinstance(training, TrainingConfig):
        return
    if isinstance(training, type):
        raise ConfigurationError(
            f"`training` must be an object; got the class {training.__name__!r}. Make one of it first."
        )
    missing = [name for name in METHODS if not callable(getattr(training, name, None))]
    if missing:
        raise ConfigurationError(
            f"`training` must be a TrainingConfig or a training loop, an object with the methods "
            f"{', '.join(METHODS)}; got {_short(training)}, which lacks {', '.join(missing)}."
        )


def described_loop(loop: TrainingLoop) -> dict[str, str]:
    """A training loop as plain data, compared when a run is resumed; its settings are its own."""
    return {"class": type(loop).__qualname__}


def _short(value: object) -> str:
    text = repr(value).split("\n", 1)[0]
    return text if len(text) <= 60 else f"{text[:57]}..."
