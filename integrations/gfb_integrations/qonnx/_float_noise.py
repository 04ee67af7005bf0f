"""How much of a difference float32 arithmetic explains, measured against float64."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gfb_brevitas.adapters.copying import copied
from gfb_integrations.qonnx._layer_outputs import LayerOutput, Recorded, recording
from gfb_integrations.qonnx._quiet import quietly


@dataclass(frozen=True)
class Noise:
    """Largest rounding errors of float32 at one layer: of its output and of its input."""

    output: float = 0.0
    input: float = 0.0


def float_noise(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    reference: Mapping[LayerOutput, Recorded],
    quantized: Collection[LayerOutput],
) -> dict[LayerOutput, Noise]:
    """Compare a float32 forward pass with one in float64 that is given the same quantized values.

    Args:
        model: The model that computed ``reference``.
        inputs: Its inputs.
        reference: What its layers returned in float32.
        quantized: The layers whose float32 values the float64 pass takes over, so that both compute on
            equal integers.

    Returns:
        The noise of every layer that was reached; nothing when the model does not run in float64.
    """
    substitutes = {name: reference[name].value.double() for name in quantized if name in reference}
    try:
        double = copied(model).double()
        wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        with quietly(), torch.no_grad(), recording(double, substitutes) as records:
            double(*wide)
    except (RuntimeError, TypeError, ValueError):
        return {}
    noise = {}
    for record in records:
        narrow = reference.get(record.output)
        if narrow is not None:
            # A quantizer's output is on its grid: what differs there are flips, not rounding errors.
            output = 0.0 if record.output in substitutes else _largest(narrow.value, record.value)
            noise[record.output] = Noise(output, _largest(narrow.input, record.input))
    return noise


def _largest(narrow: Tensor | None, wide: Tensor | None) -> float:
    if narrow is None or wide is None or narrow.shape != wide.shape or not narrow.numel():
        return 0.0
    return float((narrow.detach().double() - wide.detach()).abs().max())
