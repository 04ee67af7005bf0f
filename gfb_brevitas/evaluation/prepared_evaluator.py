"""Evaluators that prepare everything which stays while only bit widths change."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.utils import _pytree as pytree

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation.batches import LossFunction, device_of, moved
from gfb_brevitas.evaluation.evaluator import register_evaluator, scalar_loss
from gfb_brevitas.evaluation.known_losses import KnownLosses, checked_rows
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.evaluation.randomness import RandomStream, reseed
from gfb_brevitas.evaluation.super_batch import Minibatch, SuperBatch
from gfb_brevitas.prepared import PreparedForward, Run, integer_products_available
from gfb_brevitas.space import Bits, Vector

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

_logger = logging.getLogger(__name__)

EXACT = 1e-5
"""Largest relative difference between the loss by the model and the loss by what was recorded of the model.
A larger one may still be NOISE_TIMES what the loss moves with rounding noise on all values on the way."""
NOISE_TIMES, NOISE_REPEATS = 4, 3
NEGLIGIBLE = 1e-9

CHECKED, CHECKED_AT_ONCE, CHECK_EVERY = 8, 3, 32
"""Minibatches of a step on which losses are compared; after the first few only once so many were computed."""
DOUBTFUL = 2
"""So many minibatches with another loss, and no fewer than those without, make the model run itself."""

_forwards: WeakKeyDictionary[SearchableModel, dict[tuple[bool, str], PreparedForward]] = WeakKeyDictionary()


class PreparedEvaluator:
    """Runs the model through a prepared program: the same losses up to rounding, in a fraction of the time.

    Weights are quantized once per width, scales and BatchNorm are folded, chains of element-wise operations
    run in one pass, and candidates that agree on the first layers share their results. The loss function is
    called as ever, with the model, whose ``forward`` is the program meanwhile; a loss that calls other parts
    of the model gets these as they are. See :class:`gfb_brevitas.prepared.PreparedForward` for what happens
    where a model cannot be prepared.

    Args:
        model: The model; its allocation and modes are restored after each use.
        loss: ``loss(model, batch)``, a scalar tensor.
        batchnorm: Whether BatchNorm uses its running statistics or those of the minibatch.
        integers: Whether convolutions and linear layers run in eight-bit integers where they can.
    """

    def __init__(
        self,
        model: SearchableModel,
        loss: LossFunction,
        batchnorm: BatchNormStatistics = "running",
        *,
        integers: bool = False,
    ) -> None:
        self.model, self.loss, self.batchnorm = model, loss, batchnorm
        self._device = device_of(model)
        self._known = KnownLosses(model)
        kept = _forwards.setdefault(model, {})
        self._forward = kept.setdefault((integers, batchnorm), PreparedForward(model, integers=integers))
        self._verdicts: dict[int, bool] = {}  # by serial numbers of minibatches
        self._computed_since_check = 0
        self._doubt = ""

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What is computed otherwise than asked for, and why."""
        return tuple(self._forward.fallbacks)

    @property
    def account(self) -> str:
        """What runs, in words, and why nothing faster."""
        if not self._is_trusted:
            return f"the model itself; {self._doubt}"
        return self._forward.account

    def losses(self, bits: Bits, super_batch: SuperBatch) -> Vector:
        """See :meth:`Evaluator.losses`.

        Raises:
            ConfigurationError: If ``bits`` has another shape, or the loss is not a scalar.
        """
        rows = checked_rows(bits, len(self.model.profile))
        if self._known.refresh(super_batch):
            self._forward.weights_changed()
            self._verdicts.clear()
        before = self.model.space.bits(self.model.allocation)
        try:
            with inference_only(self.model, self.batchnorm), RandomStream(0).active(), self._forward.active():
                trusted = self._is_trusted
                self._evaluate_missing(rows, super_batch)
                if trusted and not self._is_trusted:  # nor are the losses so far
                    self._say_untrusted()
                    self._known.clear()
                    self._evaluate_missing(rows, super_batch)
        finally:
            self.model.set_bits(before)
        return self._known.means(rows, super_batch)

    def _evaluate_missing(self, rows: Bits, super_batch: SuperBatch) -> None:
        for minibatch, missing in self._missing(rows, super_batch):
            self._evaluate(missing, minibatch)

    def _missing(self, rows: Bits, super_batch: SuperBatch) -> list[tuple[Minibatch, list[Bits]]]:
        missing: dict[int, tuple[Minibatch, list[Bits]]] = {}
        for row in np.unique(rows, axis=0):
            for minibatch in self._known.missing(row, super_batch):
                missing.setdefault(minibatch.serial, (minibatch, []))[1].append(row)
        return list(missing.values())

    @property
    def _is_trusted(self) -> bool:
        doubtful = sum(not verdict for verdict in self._verdicts.values())
        return doubtful < DOUBTFUL or 2 * doubtful < len(self._verdicts)

    def _evaluate(self, rows: list[Bits], minibatch: Minibatch) -> None:
        order = self._forward.order_of_columns
        rows = sorted(rows, key=lambda row: tuple(row[order]))
        batch = moved(minibatch.data, self._device)
        losses = self._computed(rows, batch, minibatch.seed, self._way_for(minibatch, batch))
        for row, loss in zip(rows, losses, strict=True):
            self._known.add(row, minibatch, loss)

    def _way_for(self, minibatch: Minibatch, batch: Any) -> Run:
        """How losses on a minibatch are computed: by the program, or where that is in doubt by the model."""
        if not self._is_trusted or not _is_finite(batch):  # what eight-bit integers make of NaN is a number
            return "model"
        if minibatch.serial not in self._verdicts and self._is_check_due():
            self._verdicts[minibatch.serial] = self._agrees(batch, minibatch.seed)
            self._computed_since_check = 0
        return "program" if self._verdicts.get(minibatch.serial, True) else "model"

    def _is_check_due(self) -> bool:
        if len(self._verdicts) < CHECKED_AT_ONCE or not all(self._verdicts.values()):
            return True
        return len(self._verdicts) < CHECKED and self._computed_since_check >= CHECK_EVERY

    def _computed(
        self, rows: Iterable[Bits], batch: Any, seed: int, way: Run, noise_seed: int = 0
    ) -> list[float]:
        losses = []
        with self._forward.running(way, noise_seed):
            for row in rows:
                self.model.set_bits(row)
                reseed(seed)
                losses.append(scalar_loss(self.loss(self.model, batch)))
        self._computed_since_check += len(losses)
        return torch.stack(losses).tolist()

    def _agrees(self, batch: Any, seed: int) -> bool:
        """Whether the loss of a minibatch is the model's own where what was recorded of it runs.

        That takes the model's own operations, so the losses are the same, unless something shows that no
        recording sees: numbers read behind PyTorch's back, values that the loss takes from elsewhere than
        the outputs. What the program makes of the recording is checked layer by layer when it is made.
        """
        widest = [np.array([info.max_bits for info in self.model.profile], dtype=np.int64)]
        (own,) = self._computed(widest, batch, seed, "recording")
        (expected,) = self._computed(widest, batch, seed, "model")
        if own == expected or abs(own - expected) <= EXACT * abs(expected) + NEGLIGIBLE:
            return True
        if math.isnan(own) and math.isnan(expected):
            return True
        (again,) = self._computed(widest, batch, seed, "recording")
        noisy = (self._computed(widest, batch, seed, "noisy recording", n)[0] for n in range(NOISE_REPEATS))
        noise = max(abs(loss - again) for loss in noisy)
        # A loss that a run of the model has changed meanwhile looks at more than the outputs.
        if max(abs(own - expected), abs(own - again)) <= NOISE_TIMES * noise:
            return True
        self._doubt = f"on a minibatch its loss is {expected:.6g}, and {own:.6g} with what was recorded of it"
        return False

    def _say_untrusted(self) -> None:
        self._forward.note(f"The model runs unprepared: {self._doubt}.")
        _logger.warning("Candidates are evaluated by the model itself, which is slower: %s.", self._doubt)


def _is_finite(batch: Any) -> bool:
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def integer_evaluator(
    model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics
) -> PreparedEvaluator:
    """A prepared evaluator with eight-bit integer arithmetic.

    Raises:
        ConfigurationError: If the model is not on a CPU that has it.
    """
    if not integers_run_on(model):
        raise ConfigurationError(
            'The evaluator "integer" needs the model on a CPU with VNNI or AMX instructions and a PyTorch '
            'with oneDNN. Use "auto", which takes the fastest one that works.'
        )
    return PreparedEvaluator(model, loss, batchnorm, integers=True)


def integers_run_on(model: SearchableModel) -> bool:
    """Whether the machine multiplies a model's eight-bit integers."""
    device = device_of(model)
    return (device is None or device.type == "cpu") and integer_products_available()


register_evaluator("prepared", PreparedEvaluator)
register_evaluator("integer", integer_evaluator)
