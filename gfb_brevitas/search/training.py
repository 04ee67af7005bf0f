"""Gradient-based epochs: weights and clipping parameters move, the allocation stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from gfb_brevitas.adapters.eligibility import named_proxies
from gfb_brevitas.distributed import current_world, make_gradients
from gfb_brevitas.errors import (
    BatchError,
    CheckpointError,
    ConfigurationError,
    EmptyDataError,
    NonFiniteLossError,
)
from gfb_brevitas.evaluation.batch_faults import fault_of_data, require_samples
from gfb_brevitas.evaluation.batches import Batch, Batches, LossFunction, device_of, moved, one_pass
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed
from gfb_brevitas.rules import matches_name
from gfb_brevitas.search.checkpoint import on_cpu
from gfb_brevitas.search.config import TrainingConfig
from gfb_brevitas.search.loss_watch import LossWatch
from gfb_brevitas.search.schedule import learning_rate_factor

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


@dataclass(frozen=True, kw_only=True)
class EpochOutcome:
    """What an epoch of training gave.

    Attributes:
        train_loss: Mean of the minibatches' losses.
        learning_rate: Learning rate of the first parameter group; NaN where it is not known.
    """

    train_loss: float
    learning_rate: float = math.nan


class Trainer:
    """Trains a model for the epochs of a run, with one optimizer for all of them.

    The processes of a run train together: each computes the gradients of its part of a batch.

    Args:
        model: The model.
        loss: ``loss(model, batch)``, a scalar tensor.
        config: How to train.
        epochs: All epochs of the run, which the schedule spans.
        seed: Every epoch's random generators start from this seed and the epoch's number, so an epoch
            repeats exactly whatever happened before it in the process. Batches are drawn from others than
            the model's draws: they are the same whatever part of them the model gets.

    Raises:
        ConfigurationError: If there is nothing to train, or the optimizer cannot be made.
    """

    def __init__(
        self, model: SearchableModel, loss: LossFunction, config: TrainingConfig, *, epochs: int, seed: int
    ) -> None:
        self.model, self.loss, self.config = model, loss, config
        self.epochs, self.seed = epochs, seed
        self.optimizer = _make_optimizer(config, parameter_groups(model, config))
        self._gradients = make_gradients(
            model, self._loss_of, self._parameters(), current_world(), divides=config.data_parallel
        )
        self._highest_rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def run_epoch(
        self, batches: Batches, epoch: int, *, recovery: str = "", watch: LossWatch | None = None
    ) -> EpochOutcome:
        """Train for one pass over ``batches``.

        Args:
            batches: The training data.
            epoch: Epoch of the run, from 0.
            recovery: What to tell the user about saved work if the loss is not finite.
            watch: Looks at the losses.

        Raises:
            EmptyDataError: If the pass yields no batch.
            LossAtChanceError: If the loss is at chance and the watch stops then.
            NonFiniteLossError: If the loss or the weights become NaN or infinite.
        """
        rate = self._set_learning_rates(epoch)
        seed = derive_seed(self.seed, "epoch", epoch)
        device = device_of(self.model)
        self.model.train()
        losses: list[float] = []
        with RandomStream(derive_seed(seed, "model")).active(), self._gradients.epoch():
            for batch in one_pass(batches, seed, name="train_batches"):
                place = f"in epoch {epoch + 1}, batch {len(losses) + 1} (learning rate {rate:g})"
                losses.append(self._train_on(moved(batch, device), place, recovery))
                if watch is not None:
                    watch.after_batch(losses)
        if not losses:
            raise EmptyDataError(
                f"`train_batches` must yield at least one batch; epoch {epoch + 1} had none."
            )
        self._require_finite_weights(f"at the end of epoch {epoch + 1} (learning rate {rate:g})", recovery)
        if watch is not None:
            watch.after_epoch(losses, epoch)
        return EpochOutcome(train_loss=sum(losses) / len(losses), learning_rate=rate)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, on the CPU."""
        state: dict[str, Any] = on_cpu(self.optimizer.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a saved optimizer state.

        Raises:
            CheckpointError: If it is not of this optimizer.
        """
        try:
            self.optimizer.load_state_dict(state)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"The checkpoint's optimizer does not fit: {error}. Resume with the same training settings, "
                "or start the run anew."
            ) from error

    def _train_on(self, batch: Batch, place: str, recovery: str) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        try:
            value = self._gradients(batch)
        except BatchError as error:
            told = f"Training failed {place}. {error} {recovery}".rstrip()
            raise BatchError(told) from error.__cause__
        if not math.isfinite(value):
            _require_sound_data(batch, f"The training loss became {value} {place}", recovery)
            raise NonFiniteLossError(_not_finite(f"The training loss became {value} {place}", recovery))
        if self.config.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), self.config.gradient_clip_norm)
        self.optimizer.step()
        return value

    def _loss_of(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.loss(model, batch)

    def _require_finite_weights(self, place: str, recovery: str) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._parameters()):
            raise NonFiniteLossError(_not_finite(f"A weight became NaN or infinite {place}", recovery))

    def _set_learning_rates(self, epoch: int) -> float:
        factor = learning_rate_factor(self.config, epoch, self.epochs)
        for group, highest in zip(self.optimizer.param_groups, self._highest_rates, strict=True):
            group["lr"] = highest * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def parameter_groups(model: SearchableModel, config: TrainingConfig) -> list[dict[str, Any]]:
    """Trainable parameters, grouped by learning rate and weight decay.

    Returns:
        Dicts with ``params``, ``lr`` and ``weight_decay`` (0 for what belongs to quantizers).

    Raises:
        ConfigurationError: If a pattern of ``learning_rates`` matches no parameter.
    """
    names = {id(parameter): name for name, parameter in model.model.named_parameters()}
    known = frozenset(names.values())
    _require_matches(config, known)
    clipping_rate = config.clipping_learning_rate or config.learning_rate
    weights, scales = _apart_from_quantizers(model)
    kinds = (
        (weights, config.learning_rate, config.weight_decay),
        (scales, config.learning_rate, 0.0),
        (model.clipping_parameters(), clipping_rate, 0.0),
    )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameters, rate, decay in kinds:
        for parameter in parameters:
            if parameter.requires_grad:
                own_rate = _rate_by_name(names.get(id(parameter), ""), config, rate, known)
                groups.setdefault((own_rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _apart_from_quantizers(model: SearchableModel) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights, and what quantizers that keep Brevitas' own scale learn."""
    native = {id(p) for _, proxy in named_proxies(model.model) for p in proxy.parameters()}
    parameters = model.weight_parameters()
    return [p for p in parameters if id(p) not in native], [p for p in parameters if id(p) in native]


def _rate_by_name(name: str, config: TrainingConfig, default: float, names: frozenset[str]) -> float:
    rates = (rate for pattern, rate in config.learning_rates if matches_name(name, pattern, names))
    return next(rates, default)


def _require_matches(config: TrainingConfig, names: frozenset[str]) -> None:
    for pattern, _ in config.learning_rates:
        if not any(matches_name(name, pattern, names) for name in names):
            raise ConfigurationError(
                f"The pattern {pattern!r} in `learning_rates` matches no parameter. There are: "
                f"{', '.join(sorted(names))}."
            )


def _make_optimizer(config: TrainingConfig, groups: list[dict[str, Any]]) -> Optimizer:
    if not groups:
        raise ConfigurationError("The model must have parameters that require gradients; it has none.")
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    if config.optimizer == "adam":
        return Adam(_with_room_to_divide(groups), lr=config.learning_rate)
    optimizer = config.optimizer(groups)
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            f"`optimizer` must return a torch.optim.Optimizer; got {type(optimizer).__name__!r}."
        )
    return optimizer


def _require_sound_data(batch: Batch, what: str, recovery: str) -> None:
    require_samples(batch, f"{what}: the batch")
    fault = fault_of_data(batch)
    if fault is not None:
        raise NonFiniteLossError(f"{what}: {fault} {recovery}".rstrip())


def _not_finite(what: str, recovery: str) -> str:
    return f"{what}. {recovery}".rstrip() + (
        " Lower the learning rate, set gradient_clip_norm, or use a warm-up."
    )


FLOAT16_EPS = 1e-3
"""What Adam adds to its divisor in half precision, where its usual 1e-8 is zero and so are small squares."""


def _with_room_to_divide(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups for Adam, those of float16 parameters apart from the others."""
    made = []
    for group in groups:
        for half in (False, True):
            params = [p for p in group["params"] if (p.dtype == torch.float16) is half]
            if params:
                made.append({**group, "params": params, **({"eps": FLOAT16_EPS} if half else {})})
    return made
