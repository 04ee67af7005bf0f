"""Whether training undoes what a model knew: its loss against that of one answer for all [ours]."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, LossAtChanceError
from gfb_brevitas.evaluation.batches import Batches, LossFunction, device_of, moved, one_pass
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.evaluation.randomness import RandomStream

_BATCHES = 2
_WINDOW = 20  # minibatches whose mean counts as the loss of now
_KNEW = 0.9  # of the constant answer's loss: below, a model knows something
_LOST = 0.95  # above, it knows nothing
_LEARNS_NOTHING = 0.98
_FALLS = 0.97  # from one epoch to the next
_LONG_ENOUGH = 200  # minibatches after which a model should have learned something

_MISFITS = (
    AssertionError,
    AttributeError,
    ConfigurationError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LossReference:
    """What training losses are compared with; NaN where it is not known.

    Attributes:
        before: Loss before any training.
        constant: Loss of a model that gives every sample the same answer: the mean of the model's outputs, or
            zeros (of log-probabilities the mean probabilities), whichever is better.
    """

    before: float = math.nan
    constant: float = math.nan


def measured_reference(model: nn.Module, loss: LossFunction, batches: Batches, *, seed: int) -> LossReference:
    """The reference on the first minibatches; nothing of the model changes.

    Args:
        model: The model.
        loss: ``loss(model, batch)``.
        batches: The training data.
        seed: Start of the random stream that everything is drawn under.
    """
    device, found = device_of(model), list[tuple[float, float]]()
    drawn = [moved(batch, device) for batch in one_pass(batches, seed, _BATCHES)]
    try:
        with RandomStream(seed).active(), inference_only(model, "batch"):
            for batch in drawn:
                answers = [float(loss(_SameAnswer(model, zero), batch)) for zero in (False, True)]
                known = [value for value in answers if math.isfinite(value)]
                found.append((float(loss(model, batch)), min(known, default=math.nan)))
    except _MISFITS as error:  # a loss may ask anything of a model; training shows its own errors
        _logger.info("Training losses are not compared with those of a constant answer: %s", error)
        return LossReference()
    before, constant = (sum(values) / len(found) for values in zip(*found, strict=True))
    return LossReference(before=before, constant=constant)


class LossWatch:
    """Watches the training losses of a run and says once when they are at chance.

    Args:
        reference: What losses are compared with.
        best: Smallest mean loss of earlier epochs.
        last: Mean loss of the epoch before.
        stops: Whether to stop the run; otherwise it goes on with a warning.

    Attributes:
        told: What was said, if anything was.
    """

    def __init__(
        self,
        reference: LossReference,
        *,
        best: float = math.inf,
        last: float = math.nan,
        stops: bool = False,
    ) -> None:
        self.reference, self.told = reference, ""
        self._best, self._last, self._stops = min(best, reference.before), last, stops

    def after_batch(self, losses: Sequence[float]) -> None:
        """Look at the losses of an epoch so far; one after the other.

        Raises:
            LossAtChanceError: If the run is to stop.
        """
        if len(losses) >= 2 * _WINDOW and len(losses) % _WINDOW == 0:
            self._judge_rise(sum(losses[-_WINDOW:]) / _WINDOW)

    def after_epoch(self, losses: Sequence[float], epoch: int) -> None:
        """Look at the losses of a whole epoch, from 0 counted.

        Raises:
            LossAtChanceError: If the run is to stop.
        """
        half = len(losses) // 2
        now = sum(losses[half:]) / (len(losses) - half)
        self._judge_rise(now)
        earlier = self._last if math.isfinite(self._last) else sum(losses[:half]) / max(half, 1)
        falls = sum(losses) / len(losses) < _FALLS * earlier
        if (epoch + 1) * len(losses) >= _LONG_ENOUGH and not falls:
            self._judge_standstill(now)

    def _judge_rise(self, now: float) -> None:
        constant = self.reference.constant
        if constant > 0 and self._best < _KNEW * constant and now >= _LOST * constant:
            self._say(
                f"The training loss has risen from {self._best:.3g} to {now:.3g}; saying the same of every "
                f"sample gives {constant:.3g}. Training undoes what the weights knew."
            )

    def _judge_standstill(self, now: float) -> None:
        constant = self.reference.constant
        if constant > 0 and self._best >= _KNEW * constant and now >= _LEARNS_NOTHING * constant:
            self._say(
                f"The training loss stays at {now:.3g}; saying the same of every sample gives "
                f"{constant:.3g}. The model learns nothing."
            )

    def _say(self, what: str) -> None:
        if self.told:
            return
        self.told = f"{what} Lower the learning rate, set gradient_clip_norm, or use a warm-up."
        if self._stops:
            raise LossAtChanceError(f"{self.told} It stops here because of `at_chance='stop'`.")
        _logger.warning("%s", self.told)


class _SameAnswer(nn.Module):
    """A model's outputs with every sample's replaced by their mean, or by zeros."""

    def __init__(self, model: nn.Module, zero: bool) -> None:
        super().__init__()
        self.model, self._zero = model, zero
        self.training = model.training

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        """The outputs, in the form that the model gives them."""
        return _same(self.model(*inputs, **settings), self._zero)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


def _same(output: Any, zero: bool) -> Any:
    if isinstance(output, Tensor):
        if not output.is_floating_point() or not output.dim():
            return output
        if zero and bool((output > 0).any()):
            return torch.zeros_like(output)
        if zero:  # logarithms of probabilities, of which zeros would be certainty
            mean = output.exp().mean(dim=0, keepdim=True)
            return mean.clamp_min(torch.finfo(output.dtype).tiny).log().expand_as(output)
        return output.mean(dim=0, keepdim=True).expand_as(output)
    if isinstance(getattr(output, "value", None), Tensor):  # Brevitas' quantized tensors
        return _same(output.value, zero)
    if isinstance(output, Mapping):
        return type(output)({key: _same(value, zero) for key, value in output.items()})  # type: ignore[call-arg]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_same(value, zero) for value in output))
    if isinstance(output, tuple | list):
        return type(output)(_same(value, zero) for value in output)
    raise TypeError(f"outputs of type {type(output).__name__} have no mean")
