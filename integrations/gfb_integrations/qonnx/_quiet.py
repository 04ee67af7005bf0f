"""Keeping the exporters' own warnings from users, who can do nothing about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch.jit._trace import TracerWarning


@contextmanager
def importing_exporters() -> Iterator[None]:
    """Drop what ``brevitas.export`` warns of when it is imported."""
    with warnings.catch_warnings():
        # It imports optional accelerations and its own deprecated module on the way.
        warnings.filterwarnings("ignore", message="fast_hadamard_transform", category=UserWarning)
        warnings.filterwarnings("ignore", message="brevitas.fx is deprecated", category=DeprecationWarning)
        yield


@contextmanager
def quietly() -> Iterator[None]:
    """Drop what PyTorch, Brevitas and QONNX warn of by way of export and of forward passes for it."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, TracerWarning):
            warnings.filterwarnings("ignore", category=category)
        for module in (r"torch\.", r"brevitas\.", r"qonnx\."):
            warnings.filterwarnings("ignore", category=UserWarning, module=module)
        yield
