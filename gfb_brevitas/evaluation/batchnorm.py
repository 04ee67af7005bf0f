"""BatchNorm statistics of the widths in force, for a metric that uses running ones [ours]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gfb_brevitas.evaluation.batches import Batch, LossFunction
from gfb_brevitas.evaluation.modes import inference_only


@contextmanager
def own_statistics(model: nn.Module, loss: LossFunction, batches: Iterable[Batch]) -> Iterator[None]:
    """BatchNorm's running statistics are means over ``batches`` inside the block; they come back after it.

    Args:
        model: The model, at the widths whose statistics are wanted.
        loss: ``loss(model, batch)``, which runs the model.
        batches: On the model's device; with none, statistics stay as they are.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [({name: buffer.clone() for name, buffer in m.named_buffers()}, m.momentum) for m in norms]
    try:
        _collect(model, norms, loss, batches)
        yield
    finally:
        for norm, (buffers, momentum) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


def _collect(model: nn.Module, norms: list[_BatchNorm], loss: LossFunction, batches: Iterable[Batch]) -> None:
    with inference_only(model):
        for count, batch in enumerate(batches if norms else ()):
            for norm in norms if count == 0 else ():
                norm.reset_running_stats()
                norm.momentum = None  # a mean over all batches
                norm.training = True
            loss(model, batch)
