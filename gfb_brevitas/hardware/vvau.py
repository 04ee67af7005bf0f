"""The vector-vector activation unit: depthwise convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gfb_brevitas.hardware._product_luts import adder_tree_luts, node_luts, product_luts, threshold_luts
from gfb_brevitas.hardware.accumulators import accumulator_types, data_type_bound
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, DataTypes, FloatArray, IntArray
from gfb_brevitas.hardware.implementation import depthwise_is_rtl
from gfb_brevitas.hardware.memory import block_rams, ultra_rams
from gfb_brevitas.hardware.node import Folding, RamStyle, Widths, divisors, require, require_positive
from gfb_brevitas.hardware.resources import Resources


@dataclass(frozen=True, kw_only=True)
class VectorVector:
    """FINN's VVAU: a dot product with the window of each channel.

    FINN: ``custom_op/fpgadataflow/vectorvectoractivation.py``, with ``hls/vectorvectoractivation_hls.py`` and
    ``rtl/vectorvectoractivation_rtl.py``; weights in memories of their own (internal_decoupled). Fused
    thresholds always count, unlike those of a :class:`~gfb_brevitas.hardware.mvau.MatrixVector`.

    Args:
        channels: Channels.
        window: Elements of the kernel (height times width).
        vectors: Output pixels per sample.
        thresholds: Whether the activation is fused into the unit.
        ram_style: Where the weights go.
        multipliers: What an HLS unit multiplies with.

    Raises:
        ConfigurationError: If a number is below 1.
    """

    kind: ClassVar[str] = "VVAU"

    channels: int
    window: int
    vectors: int
    thresholds: bool = False
    ram_style: RamStyle = "auto"
    multipliers: Literal["lut", "dsp"] = "lut"

    def __post_init__(self) -> None:
        require_positive(self.kind, channels=self.channels, window=self.window, vectors=self.vectors)

    def foldings(self) -> Folding:
        """Divisors of the channels (PE); with all channels in parallel, divisors of the window (SIMD) too."""
        pe, simd = divisors(self.channels), divisors(self.window)[1:]
        return Folding(
            pe=np.concatenate([pe, np.full_like(simd, self.channels)]),
            simd=np.concatenate([np.ones_like(pe), simd]),
        )

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        cycles: FloatArray = (self.channels * self.window) / folding.pe / folding.simd * self.vectors
        return cycles

    def is_rtl(self, widths: Widths, dsp_block: DspBlock) -> BoolArray:
        """Whether the unit is made of DSP blocks."""
        inputs, weights = self._operands(widths)
        return depthwise_is_rtl(inputs, weights, thresholds=self.thresholds, dsp_block=dsp_block)

    def accumulator_bits(self, widths: Widths) -> IntArray:
        """The width of the accumulator that is given, else its bound by data types."""
        if widths.accumulator_bits is not None:
            return np.asarray(widths.accumulator_bits)
        inputs, weights = self._operands(widths)
        return accumulator_types(self.window, weights, inputs).bits

    def resources(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> Resources:
        """FINN's estimate."""
        rtl = self.is_rtl(widths, dsp_block)
        width = folding.simd * require("weights", widths.weights, self.kind).bits * folding.pe
        words = self._words(folding)
        in_blocks = (self.ram_style == "block") | ((self.ram_style == "auto") & (words > 128))
        in_ultra = self.ram_style == "ultra"
        rtl_dsps = folding.pe * np.ceil(folding.simd / 3)
        return Resources(
            lut=np.where(rtl, 0.0, self._luts(folding, widths)),
            bram_18k=in_blocks * block_rams(width, words, packed=(8, 16, 32)),
            uram=in_ultra * ultra_rams(width, words),
            dsp=np.where(rtl, rtl_dsps, self._hls_dsps(folding, widths)),
        )

    def _operands(self, widths: Widths) -> tuple[DataTypes, DataTypes]:
        return require("inputs", widths.inputs, self.kind), require("weights", widths.weights, self.kind)

    def _words(self, folding: Folding) -> IntArray:
        return (self.window * self.channels // folding.pe) // folding.simd

    def _luts(self, folding: Folding, widths: Widths) -> FloatArray:
        inputs, weights = self._operands(widths)
        operands = inputs.bits + weights.bits
        bound = data_type_bound(self.window, weights.bits, inputs.bits, inputs.is_signed)
        accumulator = np.minimum(self.accumulator_bits(widths), bound)
        lane = adder_tree_luts(folding.simd, operands) + accumulator
        if self.multipliers == "lut":
            lane = product_luts(folding.simd, operands) + lane
        if self.thresholds:
            outputs = require("outputs", widths.outputs, self.kind)
            lane = lane + threshold_luts(outputs.bits, accumulator, self.channels // folding.pe / 64)
        memory = folding.pe * folding.simd * weights.bits * np.ceil(self._words(folding) / 64)
        return node_luts(folding.pe, lane, memory * (self.ram_style == "distributed"))

    def _hls_dsps(self, folding: Folding, widths: Widths) -> FloatArray:
        inputs, weights = self._operands(widths)
        dsps: FloatArray = folding.pe * np.ceil((weights.bits + inputs.bits) / 48)
        return dsps * (self.multipliers == "dsp")
