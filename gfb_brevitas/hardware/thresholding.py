"""Thresholds in a node of their own: quantizers of inputs, and activations that are not fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import FloatArray, IntArray
from gfb_brevitas.hardware.memory import least_waste
from gfb_brevitas.hardware.node import Folding, Widths, divisors, require, require_positive
from gfb_brevitas.hardware.resources import Resources


@dataclass(frozen=True, kw_only=True)
class Thresholding:
    """FINN's Thresholding_rtl: a binary search over the thresholds of a channel, one memory per output bit.

    FINN: ``custom_op/fpgadataflow/thresholding.py`` and ``rtl/thresholding_rtl.py``. The thresholds are as
    wide as ``threshold_bits`` of the widths: 32 for a float input.

    Args:
        channels: Channels.
        vectors: Pixels (vectors of channels) per sample.

    Raises:
        ConfigurationError: If a number is below 1.
    """

    kind: ClassVar[str] = "Thresholding"

    channels: int
    vectors: int = 1

    def __post_init__(self) -> None:
        require_positive(self.kind, channels=self.channels, vectors=self.vectors)

    def foldings(self) -> Folding:
        """Divisors of the channels (PE)."""
        return Folding(pe=divisors(self.channels))

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        cycles: FloatArray = self.vectors * (self.channels / folding.pe)
        return cycles

    def resources(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> Resources:
        """FINN's estimate: the memories alone."""
        if widths.threshold_bits is None:
            raise ConfigurationError(
                "The cost of Thresholding depends on the width of its thresholds; give `threshold_bits`."
            )
        output_bits = require("outputs", widths.outputs, self.kind).bits
        total = Resources()
        for stage in range(int(output_bits.max(initial=0))):
            total += self._stage(stage, folding, widths.threshold_bits, output_bits)
        return total

    def _stage(
        self, stage: int, folding: Folding, threshold_bits: IntArray, output_bits: IntArray
    ) -> Resources:
        depth = (self.channels / folding.pe) * 2**stage
        blocks = least_waste(*np.broadcast_arrays(threshold_bits, depth))
        used = folding.pe * (stage < output_bits)
        return Resources(**{resource: used * count for resource, count in blocks.items()})
