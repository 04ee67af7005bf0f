"""Epochs by the user's training loop: called, seeded, and checked for what it leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gfb_brevitas.distributed import World, current_world
from gfb_brevitas.errors import CheckpointError, ConfigurationError, NonFiniteLossError
from gfb_brevitas.evaluation.batches import Batch, Batches, LossFunction, one_pass
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed
from gfb_brevitas.search.checkpoint import content_digest
from gfb_brevitas.search.config import TrainingConfig
from gfb_brevitas.search.loop_state import plain_state
from gfb_brevitas.search.loss_watch import LossWatch
from gfb_brevitas.search.training import EpochOutcome, Trainer
from gfb_brevitas.search.training_loop import TrainingEpoch, TrainingLoop

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


class LoopTrainer:
    """Trains a model for the epochs of a run with a training loop of the user's.

    In several processes all of them call the loop, which shares the work among them, or does the same in
    all. Their weights must be the same afterwards; loss and buffers are those of the first process.

    Args:
        model: The model.
        loss: ``loss(model, batch)``.
        loop: The user's object.
        epochs: All epochs of the run.
        seed: Every epoch's random generators start from this seed and the epoch's number, as those of
            :class:`~gfb_brevitas.search.training.Trainer` do.
    """

    def __init__(
        self, model: SearchableModel, loss: LossFunction, loop: TrainingLoop, *, epochs: int, seed: int
    ) -> None:
        self.model, self.loss, self.loop = model, loss, loop
        self.epochs, self.seed = epochs, seed
        self._world = current_world()
        self._name = type(loop).__name__

    def run_epoch(
        self, batches: Batches, epoch: int, *, recovery: str = "", watch: LossWatch | None = None
    ) -> EpochOutcome:
        """Train for one epoch.

        Args:
            batches: The training data.
            epoch: Epoch of the run, from 0.
            recovery: What to tell the user about saved work if the loss is not finite.
            watch: Looks at the loss.

        Raises:
            ConfigurationError: If the loop returns no number, or changes what must stay.
            NonFiniteLossError: If the loss or the weights become NaN or infinite.
            LossAtChanceError: If the loss is at chance and the watch stops then.
            DistributedError: If the weights differ between processes.
        """
        seed = derive_seed(self.seed, "epoch", epoch)
        place = f"epoch {epoch + 1}"
        before = _layout(self.model), self.model.allocation
        self.model.train()
        with RandomStream(derive_seed(seed, "model")).active():
            returned = self.loop.run_epoch(
                self.model,
                TrainingEpoch(
                    index=epoch, total=self.epochs, batches=_Pass(batches, seed), loss=self.loss, seed=seed
                ),
            )
        outcome = self._outcome(returned, place)
        self._require_unchanged(before, place)
        self._require_finite(outcome.train_loss, place, recovery)
        _require_same_parameters(self._world, self.model, place)
        self._world.broadcast_tensors(f"buffers after {place}", list(self.model.buffers()))
        loss = self._world.first_value("training loss", lambda: outcome.train_loss)
        if watch is not None:
            watch.after_epoch([loss], epoch)
        return EpochOutcome(train_loss=loss, learning_rate=outcome.learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """The loop's state, on the CPU.

        Raises:
            ConfigurationError: If it holds something that a checkpoint cannot.
        """
        return plain_state(self.loop.state_dict(), f"{self._name}.state_dict()")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a saved state.

        Raises:
            CheckpointError: If it is not of this loop.
        """
        try:
            self.loop.load_state_dict(state)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint's training state does not fit: {self._name}.load_state_dict raised "
                f"{type(error).__name__}: {error}. Resume with the same training loop, or start the run anew."
            ) from error

    def _outcome(self, returned: object, place: str) -> EpochOutcome:
        outcome = returned if isinstance(returned, EpochOutcome) else None
        loss = _number(returned if outcome is None else outcome.train_loss)
        rate = math.nan if outcome is None else _number(outcome.learning_rate)
        if loss is None or rate is None:
            raise ConfigurationError(
                f"{self._name}.run_epoch must return the mean training loss, a number, or an "
                f"EpochOutcome(train_loss=..., learning_rate=...); in {place} it returned {returned!r}."
            )
        return EpochOutcome(train_loss=loss, learning_rate=rate)

    def _require_unchanged(self, before: tuple[object, object], place: str) -> None:
        if self.model.allocation != before[1]:
            raise ConfigurationError(
                f"{self._name}.run_epoch must leave the bit widths as they are; it changed them in {place}. "
                "They are the search's to choose: do not call set_allocation in a training loop."
            )
        if _layout(self.model) != before[0]:
            raise ConfigurationError(
                f"{self._name}.run_epoch must leave the model's parameters under the same names and in the "
                f"same shapes; they are others after {place}. Wrap the model instead of changing it, and do "
                "not divide parameters among devices (FSDP, DeepSpeed)."
            )

    def _require_finite(self, loss: float, place: str, recovery: str) -> None:
        what = ""
        if not math.isfinite(loss):
            what = f"The training loss that {self._name}.run_epoch returned for {place} is {loss}."
        elif not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            what = f"A weight became NaN or infinite in {place}."
        if what:
            advice = "Lower the learning rate, or clip gradients."
            raise NonFiniteLossError(" ".join(part for part in (what, recovery, advice) if part))


def make_trainer(
    model: SearchableModel,
    loss: LossFunction,
    training: TrainingConfig | TrainingLoop,
    *,
    epochs: int,
    seed: int,
) -> Trainer | LoopTrainer:
    """What trains a model for the epochs of a run."""
    if isinstance(training, TrainingConfig):
        return Trainer(model, loss, training, epochs=epochs, seed=seed)
    return LoopTrainer(model, loss, training, epochs=epochs, seed=seed)


class _Pass(Iterable[Batch]):
    """One pass over batches, the same every time."""

    def __init__(self, batches: Batches, seed: int) -> None:
        self._batches, self._seed = batches, seed

    def __iter__(self) -> Iterator[Batch]:
        return one_pass(self._batches, self._seed)


def _require_same_parameters(world: World, model: nn.Module, place: str) -> None:
    if world.size > 1:
        digest = content_digest(dict(model.named_parameters())).encode()
        advice = (
            "A training loop must share gradients among the processes (with DistributedDataParallel, as "
            "Accelerate does), or train on the same batches in all of them."
        )
        world.require_equal(f"weights after {place}", digest, advice)


def _layout(model: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, parameter.shape) for name, parameter in model.named_parameters()]


def _number(value: Any) -> float | None:
    if isinstance(value, bool | str | bytes):
        return None
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        return None
