"""Clipping values with the least mean squared quantization error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfb_brevitas.errors import CalibrationError
from gfb_brevitas.quant.fake_quantize import quantize_values
from gfb_brevitas.quant.integers import IntegerFormat

_COARSE = 48
_FINE = 12
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Values that one quantizer sees.

    Attributes:
        values: Shape ``(channels, n)``; one channel when the scale is per tensor.
        integers: The quantizer's integer range.
    """

    values: Tensor
    integers: IntegerFormat


@torch.no_grad()
def mse_optimal_clipping(samples: Sequence[Samples], bits: int) -> Tensor:
    """The clipping value per channel that minimises the squared error of quantization.

    A scan over the range of the data that is refined around its best point. Its resolution is about
    1e-4 of that range; the squared error, which is flat around its minimum, is found more closely.
    Several samples share one clipping value: their errors are added.

    Args:
        samples: At least one; all with the same number of channels.
        bits: Bit width.

    Returns:
        Clipping values, shape ``(channels,)``. A channel that is zero throughout gets 1.

    Raises:
        CalibrationError: If there are no values, or not finite ones.
    """
    for sample in samples:
        if sample.values.numel() == 0:
            raise CalibrationError("Clipping cannot be calibrated: a quantizer received no values.")
        if not torch.isfinite(sample.values).all():
            raise CalibrationError(
                "Clipping cannot be calibrated: a quantizer received NaN or infinite values. "
                "Check the inputs and the weights of the model."
            )
    reach = torch.stack([s.values.abs().amax(dim=1) for s in samples]).amax(dim=0)
    dead = reach == 0
    reach = torch.where(dead, torch.ones_like(reach), reach) * _largest_useful(samples, bits)
    low, high = reach / _COARSE, reach
    best, count = high, _COARSE
    for _ in range(_ROUNDS):
        grid = torch.linspace(0, 1, count, device=reach.device, dtype=reach.dtype)
        candidates = low + (high - low) * grid[:, None]
        errors = torch.stack([_error(samples, row, bits) for row in candidates])
        index = errors.argmin(dim=0, keepdim=True)
        best = candidates.gather(0, index)[0]
        step = (high - low) / (count - 1)
        low, high, count = (best - step).clamp_min(0) + reach * 1e-6, best + step, _FINE
    return torch.where(dead, torch.ones_like(best), best)


def _largest_useful(samples: Sequence[Samples], bits: int) -> float:
    # A range that is wider than the threshold's sign says can represent values beyond a.
    return max(max(1.0, s.integers.threshold(bits) / max(1, s.integers.largest(bits))) for s in samples)


def _error(samples: Sequence[Samples], clipping: Tensor, bits: int) -> Tensor:
    total = torch.zeros_like(clipping)
    for sample in samples:
        scale = (clipping / sample.integers.threshold(bits))[:, None]
        quantized = quantize_values(sample.values, scale, bits, sample.integers)
        total += (quantized - sample.values).square().sum(dim=1)
    return total
