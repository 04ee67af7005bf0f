"""Keeping a bounded sample of the values that flow into a quantizer."""

from __future__ import annotations

import torch
from torch import Tensor

from gfb_brevitas.errors import CalibrationError


class ValueSampler:
    """Collects values per channel, spread evenly over all tensors it is given.

    When it is full, one value in three is kept, and later tensors are sampled as sparsely.

    Args:
        channel_dim: Dimension that holds the channels, or ``None`` for one scale per tensor.
        per_call: Most values per channel that are kept of one tensor.
        capacity: Most values per channel that are kept in all.
    """

    def __init__(self, channel_dim: int | None, per_call: int = 8192, capacity: int = 65536) -> None:
        self.channel_dim = channel_dim
        self.per_call = per_call
        self.capacity = capacity
        self._kept: list[Tensor] = []
        self._count = 0
        self._thinning = 1

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Take a sample of ``x`` (any shape)."""
        if x.dim() == 0 or x.numel() == 0:
            return
        rows = x.reshape(1, -1) if self.channel_dim is None else x.movedim(self.channel_dim, 0).flatten(1)
        # An odd stride does not fall into step with the (mostly even) rows of an image.
        stride = -(-rows.shape[1] // self.per_call) * self._thinning
        taken = rows[:, :: stride + (stride > 1 and stride % 2 == 0)].detach().float().clone()
        self._kept.append(taken)
        self._count += taken.shape[1]
        while self._count > self.capacity:
            self._kept = [torch.cat(self._kept, dim=1)[:, ::3].clone()]
            self._count = self._kept[0].shape[1]
            self._thinning *= 3

    def values(self) -> Tensor:
        """Everything kept; shape ``(channels, n)``, float32.

        Raises:
            CalibrationError: If nothing was seen.
        """
        if not self._kept:
            raise CalibrationError("The calibration batches never reached this quantizer.")
        return torch.cat(self._kept, dim=1)

    def __len__(self) -> int:
        return self._count
