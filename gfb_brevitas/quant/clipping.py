"""Clipping values as a function of the bit width, a(b).

A network that is sampled at a bit width it was not trained at still needs a sensible range. The
paper observes that the MSE-optimal clipping value is close to linear in the bit width (section 3.6,
Fig. 3b) and compares dependencies in Fig. 6; the three here are constant, linear and one per width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError

ClippingKind = Literal["constant", "linear", "per_bit"]
MIN_CLIPPING = 1e-8
"""Clipping values are kept above this, with a straight-through gradient so that they can recover."""


class Clipping(nn.Module, ABC):
    """A learned clipping value a(b) > 0, one per tensor or per channel."""

    @abstractmethod
    def raw(self, bits: int) -> Tensor:
        """a(b) before it is kept positive."""

    @abstractmethod
    def fit(self, targets: Mapping[int, Tensor]) -> None:
        """Start a(b) as close as its form allows to given values.

        Args:
            targets: Wanted clipping value per bit width; each of the clipping value's shape.
        """

    def forward(self, bits: int) -> Tensor:
        """The clipping value at a width of ``bits``; a scalar or a broadcastable shape."""
        raw = self.raw(bits)
        kept = raw.detach().clamp_min(MIN_CLIPPING)
        return raw + (kept - raw.detach())


class ConstantClipping(Clipping):
    """a(b) = a.

    Args:
        start: Clipping value to start from; its shape is that of all later ones.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(start.detach().clone())

    def raw(self, bits: int) -> Tensor:
        """The one clipping value."""
        return self.value

    @torch.no_grad()
    def fit(self, targets: Mapping[int, Tensor]) -> None:
        """Take the median over the widths."""
        self.value.copy_(torch.stack(list(targets.values())).median(dim=0).values)


class LinearClipping(Clipping):
    """a(b) = a0 + a1 * b.

    Args:
        start: Clipping value to start from, at every width.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.intercept = nn.Parameter(start.detach().clone())
        self.slope = nn.Parameter(torch.zeros_like(start))

    def raw(self, bits: int) -> Tensor:
        """The line at ``bits``."""
        return self.intercept + self.slope * bits

    @torch.no_grad()
    def fit(self, targets: Mapping[int, Tensor]) -> None:
        """Least squares over the widths; widths above one when there are two such.

        One bit is left out of the fit because bipolar values have no rounding error to trade
        against clipping: their optimum is off the line [ours].
        """
        widths = [bits for bits in targets if bits > 1]
        if len(widths) < 2:
            widths = list(targets)
        values = torch.stack([targets[bits] for bits in widths])
        b = torch.tensor(widths, dtype=values.dtype, device=values.device)
        b = b.reshape(-1, *(1,) * (values.dim() - 1))
        centred = b - b.mean()
        spread = centred.square().sum()
        slope = (centred * values).sum(dim=0) / spread if len(widths) > 1 else torch.zeros_like(values[0])
        intercept = values.mean(dim=0) - slope * b.mean()
        smallest = torch.stack(list(targets.values())).amin(dim=0)
        negative = intercept + slope * min(targets) < 0.5 * smallest
        self.slope.copy_(torch.where(negative, torch.zeros_like(slope), slope))
        self.intercept.copy_(torch.where(negative, values.mean(dim=0), intercept))


class PerBitClipping(Clipping):
    """One free clipping value per bit width.

    Args:
        start: Clipping value to start from, at every width.
        max_bits: Largest width.
    """

    def __init__(self, start: Tensor, max_bits: int) -> None:
        super().__init__()
        self.values = nn.Parameter(start.detach().clone().expand(max_bits, *start.shape).contiguous())

    def raw(self, bits: int) -> Tensor:
        """The value that belongs to ``bits``."""
        return self.values[bits - 1]

    @torch.no_grad()
    def fit(self, targets: Mapping[int, Tensor]) -> None:
        """Take every value as it is."""
        for bits, value in targets.items():
            self.values[bits - 1].copy_(value)


def make_clipping(kind: ClippingKind, start: Tensor, max_bits: int) -> Clipping:
    """Make a clipping value of the given form.

    Args:
        kind: ``"constant"``, ``"linear"`` or ``"per_bit"``.
        start: Clipping value to start from, a scalar or one per channel (broadcastable shape).
        max_bits: Largest bit width that will be asked for.

    Raises:
        ConfigurationError: If ``kind`` is none of these.
    """
    if kind == "constant":
        return ConstantClipping(start)
    if kind == "linear":
        return LinearClipping(start)
    if kind == "per_bit":
        return PerBitClipping(start, max_bits)
    raise ConfigurationError(f'clipping must be "constant", "linear" or "per_bit"; got {kind!r}.')
