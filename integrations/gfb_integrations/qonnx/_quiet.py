"""Keeping the exporters' own warnings from users, who can do nothing about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch.jit._trace import TracerWarning


@contextmanager
def quietly() -> Iterator[None]:
    """Drop what PyTorch, Brevitas and QONNX warn of by way of export and of forward passes for it."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, TracerWarning):
            warnings.filterwarnings("ignore", category=category)
        for module in (r"torch\.", r"brevitas\.", r"qonnx\."):
            warnings.filterwarnings("ignore", category=UserWarning, module=module)
        yield
