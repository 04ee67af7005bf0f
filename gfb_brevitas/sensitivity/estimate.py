"""The expected increase of the loss per quantizer and width, from one forward and backward pass [ours].

The second order estimate with the empirical Fisher information for the Hessian: the sum over a tensor's
values of (gradient * change)^2, where the change is what a width does to the value against the largest width
of the quantizer. Increases of different quantizers are taken to add up. The diagonal of the Hessian: LeCun,
Denker and Solla, "Optimal Brain Damage" (1990); the empirical Fisher information: Theis et al.,
arXiv:1801.05787.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfb_brevitas.errors import EmptyDataError
from gfb_brevitas.evaluation.batches import Batch, LossFunction, device_of, moved
from gfb_brevitas.evaluation.evaluator import scalar_loss
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.quant.quantizer import LearnedClippingQuantizer
from gfb_brevitas.space import Bits, Vector

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class SensitivityTable:
    """Expected increases of the loss.

    Attributes:
        names: The quantizers, in profile order.
        increases: Shape ``(quantizers, largest width + 1)``, in units of the loss up to a factor common to
            all (half the samples of a minibatch); column b is for b bits, column 0 is not used. Zero at a
            quantizer's largest width and never rising with b.
    """

    names: tuple[str, ...]
    increases: NDArray[np.float64]

    def totals(self, bits: Bits) -> Vector:
        """Sums of increases of candidates: bits ``(P, quantizers)`` to ``(P,)``."""
        total: Vector = self.increases[np.arange(len(self.names)), bits].sum(axis=-1)
        return total


def estimate_sensitivity(
    model: SearchableModel, loss: LossFunction, batches: Iterable[Batch], batchnorm: BatchNormStatistics
) -> SensitivityTable | None:
    """Estimate sensitivities at the allocation in force, which the weights were trained at.

    Nothing of the model changes, nor do its parameters' gradients. Quantizers that keep a scale of
    Brevitas' own cannot be asked for other widths; they get the median of the others.

    Example:
        >>> table = estimate_sensitivity(model, loss, batches, "running")  # doctest: +SKIP
        >>> table.totals(model.space.bits(model.space.uniform(2))[None])  # doctest: +SKIP
        array([1.31])

    Args:
        model: The model.
        loss: ``loss(model, batch)``, a scalar tensor.
        batches: The minibatches; each counts the same.
        batchnorm: Statistics that BatchNorm uses.

    Returns:
        The table, or ``None`` if the loss has no gradient.

    Raises:
        EmptyDataError: If there is no minibatch.
    """
    learned = [site.learned for site in model._sites]
    highest = max(info.max_bits for info in model.profile)
    total = np.zeros((len(learned), highest + 1))
    device, used = device_of(model), 0
    for batch in batches:
        calls = _gradients(model, loss, moved(batch, device), batchnorm, learned)
        if calls is None:
            _logger.info("The loss has no gradient: the search starts without a sensitivity estimate.")
            return None
        for index, module, values, gradient in calls:
            info = model.profile.quantizers[index]
            total[index] += _increases(module, values, gradient, info.min_bits, info.max_bits, highest)
        used += 1
    if not used:
        raise EmptyDataError("Sensitivities need at least 1 minibatch; got none.")
    known = np.array([module is not None for module in learned])
    return SensitivityTable(names=model.profile.names, increases=_completed(total / used, known))


_Call = tuple[int, LearnedClippingQuantizer, Tensor, Tensor]


def _gradients(
    model: SearchableModel,
    loss: LossFunction,
    batch: Batch,
    batchnorm: BatchNormStatistics,
    learned: list[LearnedClippingQuantizer | None],
) -> list[_Call] | None:
    """Inputs of all quantizers and the gradients of their outputs."""
    recorded: list[tuple[int, LearnedClippingQuantizer, Tensor, Tensor]] = []

    def record(index: int, module: LearnedClippingQuantizer) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
            recorded.append((index, module, inputs[0].detach(), output[0]))

        return module.register_forward_hook(hook)

    with ExitStack() as stack:
        for index, module in enumerate(learned):
            if module is not None:
                stack.callback(record(index, module).remove)
        stack.enter_context(inference_only(model, batchnorm))
        stack.enter_context(torch.enable_grad())
        # cuDNN has no backward pass of recurrent layers in evaluation mode.
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        value = scalar_loss(loss(model, batch))
    outputs = [output for *_, output in recorded]
    if not value.requires_grad or not outputs:
        return None
    usable = [i for i, output in enumerate(outputs) if output.requires_grad]
    gradients = torch.autograd.grad(value, [outputs[i] for i in usable], allow_unused=True)
    pairs = zip(usable, gradients, strict=True)
    return [(*recorded[i][:3], gradient) for i, gradient in pairs if gradient is not None]


@torch.no_grad()
def _increases(
    module: LearnedClippingQuantizer, values: Tensor, gradient: Tensor, low: int, high: int, highest: int
) -> Vector:
    """Expected increases of one call; shape ``(highest + 1,)``."""
    with _width_kept(module):
        module.width.bits = high
        best = module.forward(values)[0]
        found = [torch.zeros((), device=values.device)]
        for bits in range(high - 1, low - 1, -1):
            module.width.bits = bits
            found.append((gradient * (module.forward(values)[0] - best)).square().sum())
    increases = np.nan_to_num(np.array(torch.stack(found).tolist(), dtype=np.float64), posinf=0.0)
    rising = np.maximum.accumulate(increases)[::-1]
    return np.concatenate([np.full(low, rising[0]), rising, np.zeros(highest - high)])


@contextmanager
def _width_kept(module: LearnedClippingQuantizer) -> Iterator[None]:
    before = module.width.bits
    try:
        yield
    finally:
        module.width.bits = before


def _completed(table: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    if known.any() and not known.all():
        table[~known] = np.median(table[known], axis=0)
    return table
