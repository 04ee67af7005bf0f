"""Layers of a model that must know the whole batch, of which each process has a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gfb_brevitas.distributed.batches import Part
from gfb_brevitas.distributed.batchnorm import uses_batch_statistics, whole_batch_norm
from gfb_brevitas.distributed.world import World

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class WholeBatchLayers:
    """Makes a model's layers compute with a part of a batch what they would with all of it.

    BatchNorm takes its statistics over all processes. Dropout draws the mask of the whole batch in every
    process and uses its part, so that it drops what one process would. Inside :meth:`dividing` only; the
    layers' own code runs otherwise.

    Args:
        model: The model.
        world: The processes.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self._model, self._world = model, world
        self._part: Part | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Prepare the layers inside the block."""
        changed: list[nn.Module] = []
        try:
            for module in self._model.modules():
                forward = self._forward_of(module)
                if forward is not None:
                    # On the instance: names, hooks and the state dict stay as they are.
                    object.__setattr__(module, "forward", forward)
                    changed.append(module)
            yield
        finally:
            for module in changed:
                object.__delattr__(module, "forward")

    @contextmanager
    def dividing(self, part: Part) -> Iterator[None]:
        """Inside the block the model gets a part of a batch."""
        self._part = part
        try:
            yield
        finally:
            self._part = None

    def _forward_of(self, module: nn.Module) -> Callable[[Any], Any] | None:
        if "forward" in vars(module):
            return None
        own = module.forward
        if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward:
            return lambda x: self._batch_norm(module, own, x)
        if isinstance(module, _DROPOUTS) and type(module).forward in [kind.forward for kind in _DROPOUTS]:
            return lambda x: self._dropout(module, own, x)
        return None

    def _batch_norm(self, module: _BatchNorm, own: Callable[[Any], Any], x: Any) -> Any:
        if self._part is None or not uses_batch_statistics(module):
            return own(x)
        return whole_batch_norm(module, x, self._world)

    def _dropout(self, module: nn.Module, own: Callable[[Any], Any], x: Any) -> Any:
        x, part = getattr(x, "value", x), self._part  # of a quant tensor
        if part is None or not module.training or not isinstance(x, Tensor) or not x.dim():
            return own(x)
        # Samples may be the outer part of the first dimension, as where tokens are put one after another.
        repeats, rest = divmod(len(x), part.stop - part.start)
        if rest:
            return own(x)
        kept = own(_ones(repeats * part.total, x))
        return x * kept[repeats * part.start : repeats * part.stop]


def _ones(samples: int, like: Tensor) -> Tensor:
    """Ones for more samples, in the order in memory of ``like``, which is that of random draws."""
    channels_last = like.dim() == 4 and not like.is_contiguous()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return like.new_ones((samples, *like.shape[1:])).to(memory_format=memory_format)


def reason_to_stay_whole(model: nn.Module) -> str | None:
    """What in a model would compute something else with a part of a batch; ``None`` if nothing is known."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            if type(module).forward is not _BatchNorm.forward or "forward" in vars(module):
                return f"{name} is a BatchNorm with a forward of its own"
        elif _collects_statistics(module):
            return f"{name} collects statistics of whole batches"
    return None


def _collects_statistics(module: nn.Module) -> bool:
    """Whether it is a part of a Brevitas quantizer that takes its scale or zero point from batches."""
    count = getattr(module, "counter", None)
    if not isinstance(count, int):
        return False
    steps = getattr(module, "collect_stats_steps", None)
    return hasattr(module, "running_stats") if steps is None else count <= steps
