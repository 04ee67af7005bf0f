"""Running a model for its outputs only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def inference_only(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; every submodule's own mode comes back.

    ``torch.no_grad`` rather than ``inference_mode``: a module may keep a tensor it computed here, and
    inference tensors must not meet autograd later.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
