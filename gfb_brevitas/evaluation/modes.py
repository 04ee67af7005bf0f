"""Running a model for its outputs only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gfb_brevitas.choices import BatchNormStatistics as BatchNormStatistics


@contextmanager
def inference_only(model: nn.Module, batchnorm: BatchNormStatistics = "running") -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; every submodule's own mode comes back.

    With ``batchnorm="batch"``, BatchNorm normalizes with the statistics of the batch at hand and leaves
    its running ones alone.

    ``torch.no_grad`` rather than ``inference_mode``: a module may keep a tensor it computed here, and
    inference tensors must not meet autograd later.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    try:
        if batchnorm == "batch":
            for norm in norms:
                norm.training, norm.track_running_stats = True, False
        with torch.no_grad():
            yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for module, training in modes:
            module.training = training
