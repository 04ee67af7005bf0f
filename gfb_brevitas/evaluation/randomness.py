"""Random draws that repeat, without touching the generators of the surrounding program."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """A seed in [0, 2^32) that depends on every part of ``key`` and on nothing else.

    Example:
        >>> derive_seed(0, "epoch", 3) == derive_seed(0, "epoch", 3)
        True
        >>> derive_seed(0, "epoch", 3) == derive_seed(0, "epoch", 4)
        False
    """
    digest = hashlib.sha256("\0".join(f"{type(part).__name__}:{part}" for part in key).encode()).digest()
    return int.from_bytes(digest[:4], "little")


@dataclass(frozen=True)
class _GlobalState:
    """States of the global generators of torch (CPU and CUDA), NumPy and Python."""

    torch_cpu: torch.Tensor
    torch_cuda: list[torch.Tensor] | None
    numpy_legacy: Any
    python: Any

    @classmethod
    def capture(cls) -> _GlobalState:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        return cls(torch.get_rng_state(), cuda, np.random.get_state(), random.getstate())

    def restore(self) -> None:
        torch.set_rng_state(self.torch_cpu)
        if self.torch_cuda is not None:
            torch.cuda.set_rng_state_all(self.torch_cuda)
        np.random.set_state(self.numpy_legacy)
        random.setstate(self.python)


class RandomStream:
    """A private continuation of the global random generators.

    Inside ``with stream.active():`` the global generators of torch, NumPy and Python are where this
    stream left them last (first time: freshly seeded); afterwards they are as they were before. Code
    that draws from the global generators (a shuffling DataLoader, an augmentation, dropout) so
    becomes repeatable and neither disturbs nor notices anything else.

    Args:
        seed: Where the stream starts.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._state: _GlobalState | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the block."""
        outside = _GlobalState.capture()
        try:
            if self._state is None:
                reseed(self.seed)
            else:
                self._state.restore()
            yield
        finally:
            self._state = _GlobalState.capture()
            outside.restore()


def reseed(seed: int) -> None:
    """Start the global generators anew; only inside of an active :class:`RandomStream`.

    A hundredth of the time of ``torch.manual_seed``, so that it may come before every candidate.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
