"""Clipping values as a function of the bit width, a(b).

A network that is sampled at a bit width it was not trained at still needs a sensible range. The
paper observes that the MSE-optimal clipping value is close to linear in the bit width (section 3.6,
Fig. 3b) and compares dependencies in Fig. 6; the three here are constant, linear and one per width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gfb_brevitas.choices import ClippingKind as ClippingKind
from gfb_brevitas.errors import ConfigurationError

SLOPE_BITS = 8.0
"""Widths are counted in multiples of this in a line's slope, so that a gradient at one width does not
move the range at another several times as far [ours]."""
MIN_CLIPPING = 1e-8
"""Clipping values are kept above this, with a straight-through gradient so that they can recover."""


class Clipping(nn.Module, ABC):
    """A learned clipping value a(b) > 0, one per tensor or per channel.

    Parameters are kept in multiples of the value that a(b) started from, so that one learning rate
    moves the ranges of small weights and of large activations by the same share [ours].

    Args:
        start: Clipping value to start from, at every width: a scalar or one per channel
            (broadcastable shape).
    """

    unit: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", start.detach().clone().clamp_min(MIN_CLIPPING))

    @abstractmethod
    def relative(self, bits: int) -> Tensor:
        """a(b) in multiples of :attr:`unit`, before it is kept positive."""

    @abstractmethod
    def _fit_relative(self, targets: Mapping[int, Tensor]) -> None:
        """Start from wanted values given in multiples of :attr:`unit`."""

    @torch.no_grad()
    def fit(self, targets: Mapping[int, Tensor]) -> None:
        """Start a(b) as close to given values as its form allows.

        Args:
            targets: Wanted clipping value per bit width; each of the clipping value's shape.
        """
        self.unit.copy_(torch.stack(list(targets.values())).mean(dim=0).clamp_min(MIN_CLIPPING))
        self._fit_relative({bits: value / self.unit for bits, value in targets.items()})

    def forward(self, bits: int) -> Tensor:
        """The clipping value at a width of ``bits``; a scalar or a broadcastable shape."""
        raw = self.relative(bits) * self.unit
        fixed = raw.detach()
        return fixed.clamp_min(MIN_CLIPPING) + (raw - fixed)


class ConstantClipping(Clipping):
    """a(b) = a."""

    def __init__(self, start: Tensor) -> None:
        super().__init__(start)
        self.value = nn.Parameter(torch.ones_like(self.unit))

    def relative(self, bits: int) -> Tensor:
        """The one clipping value."""
        return self.value

    def _fit_relative(self, targets: Mapping[int, Tensor]) -> None:
        self.value.copy_(torch.stack(list(targets.values())).median(dim=0).values)


class LinearClipping(Clipping):
    """a(b) = a0 + a1 * b."""

    def __init__(self, start: Tensor) -> None:
        super().__init__(start)
        self.intercept = nn.Parameter(torch.ones_like(self.unit))
        self.slope = nn.Parameter(torch.zeros_like(self.unit))

    def relative(self, bits: int) -> Tensor:
        """The line at ``bits``."""
        return self.intercept + self.slope * (bits / SLOPE_BITS)

    def _fit_relative(self, targets: Mapping[int, Tensor]) -> None:
        # Least squares. One bit stays out where there are others: it has no rounding error to trade
        # against clipping, so its optimum is off the line [ours].
        widths = [bits for bits in targets if bits > 1] or list(targets)
        values = torch.stack([targets[bits] for bits in widths])
        b = torch.tensor(widths, dtype=values.dtype, device=values.device)
        centred = (b - b.mean()).reshape(-1, *(1,) * (values.dim() - 1))
        slope = (centred * values).sum(dim=0) / centred.square().sum().clamp_min(1)
        intercept = values.mean(dim=0) - slope * b.mean()
        # A line that would fall below half the smallest wanted value is replaced by a constant.
        smallest = torch.stack(list(targets.values())).amin(dim=0)
        lowest = torch.minimum(intercept + slope * min(targets), intercept + slope * max(targets))
        too_low = lowest < 0.5 * smallest
        self.slope.copy_(torch.where(too_low, torch.zeros_like(slope), slope) * SLOPE_BITS)
        self.intercept.copy_(torch.where(too_low, values.mean(dim=0), intercept))


class PerBitClipping(Clipping):
    """One free clipping value per bit width.

    Args:
        start: Clipping value to start from, at every width.
        max_bits: Largest width.
    """

    def __init__(self, start: Tensor, max_bits: int) -> None:
        super().__init__(start)
        self.values = nn.Parameter(torch.ones_like(self.unit).expand(max_bits, *start.shape).contiguous())

    def relative(self, bits: int) -> Tensor:
        """The value that belongs to ``bits``."""
        return self.values[bits - 1]

    def _fit_relative(self, targets: Mapping[int, Tensor]) -> None:
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
