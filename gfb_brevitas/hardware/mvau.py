"""The matrix-vector activation unit: fully connected layers and lowered convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from gfb_brevitas.hardware._product_luts import adder_tree_luts, node_luts, product_luts, threshold_luts
from gfb_brevitas.hardware.accumulators import accumulator_types, data_type_bound
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, DataTypes, FloatArray, IntArray
from gfb_brevitas.hardware.implementation import matrix_vector_is_rtl
from gfb_brevitas.hardware.memory import block_rams, ultra_rams
from gfb_brevitas.hardware.node import (
    MAX_STREAM_BITS,
    Folding,
    RamStyle,
    Widths,
    divisors,
    require,
    require_positive,
)
from gfb_brevitas.hardware.resources import Resources


@dataclass(frozen=True, kw_only=True)
class MatrixVector:
    """FINN's MVAU: ``inputs`` x ``outputs`` weights times a stream of vectors.

    FINN: ``custom_op/fpgadataflow/matrixvectoractivation.py``, with ``hls/matrixvectoractivation_hls.py`` and
    ``rtl/matrixvectoractivation_rtl.py``; weights in memories of their own (internal_decoupled).

    Example:
        >>> node = MatrixVector(inputs=64, outputs=10)
        >>> node.cycles(Folding(pe=[1, 2, 10], simd=[1, 8, 64]))
        array([640.,  40.,   1.])

    Args:
        inputs: Length of an input vector (MW).
        outputs: Length of an output vector (MH).
        vectors: Vectors per sample.
        thresholds: Whether the activation is fused into the unit.
        ram_style: Where the weights go.
        threshold_ram_style: Where fused thresholds go. They count where this is ``distributed`` only.
        multipliers: What an HLS unit multiplies with.

    Raises:
        ConfigurationError: If a number is below 1.
    """

    kind: ClassVar[str] = "MVAU"

    inputs: int
    outputs: int
    vectors: int = 1
    thresholds: bool = False
    ram_style: RamStyle = "auto"
    threshold_ram_style: RamStyle = "auto"
    multipliers: Literal["lut", "dsp"] = "lut"

    def __post_init__(self) -> None:
        require_positive(self.kind, inputs=self.inputs, outputs=self.outputs, vectors=self.vectors)

    def foldings(self) -> Folding:
        """Every pair of a divisor of the outputs (PE) and one of the inputs (SIMD)."""
        pe, simd = np.meshgrid(divisors(self.outputs), divisors(self.inputs), indexing="ij")
        return Folding(pe=pe.ravel(), simd=simd.ravel())

    def is_legal(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> BoolArray:
        """Whether a folding can be built: HLS limits the weight stream, and SIMD to a 1024th of the inputs.

        FINN: ``set_folding.py`` and ``hls/matrixvectoractivation_hls.py``, defines.
        """
        stream = folding.pe * folding.simd * require("weights", widths.weights, self.kind).bits
        fits = (stream <= MAX_STREAM_BITS) & (folding.simd * 1024 >= self.inputs)
        return np.asarray(self.is_rtl(widths, dsp_block) | fits)

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        cycles: FloatArray = (self.outputs / folding.pe) * (self.inputs / folding.simd) * self.vectors
        return cycles

    def is_rtl(self, widths: Widths, dsp_block: DspBlock) -> BoolArray:
        """Whether the unit is made of DSP blocks."""
        inputs, weights = self._operands(widths)
        bits = self.accumulator_bits(widths)
        return matrix_vector_is_rtl(inputs, weights, bits, thresholds=self.thresholds, dsp_block=dsp_block)

    def accumulator_bits(self, widths: Widths) -> IntArray:
        """The width of the accumulator that is given, else its bound by data types."""
        if widths.accumulator_bits is not None:
            return np.asarray(widths.accumulator_bits)
        inputs, weights = self._operands(widths)
        return accumulator_types(self.inputs, weights, inputs).bits

    def resources(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> Resources:
        """FINN's estimate."""
        weights = require("weights", widths.weights, self.kind)
        rtl = self.is_rtl(widths, dsp_block)
        width = folding.simd * weights.bits * folding.pe
        depth = (self.inputs * self.outputs) / (folding.simd * folding.pe)
        in_blocks, in_ultra = self.ram_style in ("auto", "block"), self.ram_style == "ultra"
        return Resources(
            lut=np.where(rtl, 0.0, self._luts(folding, widths)),
            bram_18k=in_blocks * block_rams(width, depth),
            uram=in_ultra * ultra_rams(width, depth),
            dsp=np.where(rtl, _rtl_dsps(folding, dsp_block), self._hls_dsps(folding, widths)),
        )

    def _operands(self, widths: Widths) -> tuple[DataTypes, DataTypes]:
        return require("inputs", widths.inputs, self.kind), require("weights", widths.weights, self.kind)

    def _luts(self, folding: Folding, widths: Widths) -> FloatArray:
        inputs, weights = self._operands(widths)
        operands = inputs.bits + weights.bits
        bound = data_type_bound(self.inputs, weights.bits, inputs.bits, inputs.is_signed)
        accumulator = np.minimum(self.accumulator_bits(widths), bound)
        lane = adder_tree_luts(folding.simd, operands) + accumulator
        if self.multipliers == "lut":
            lane = product_luts(folding.simd, operands) + lane
        if self.thresholds and self.threshold_ram_style == "distributed":
            outputs = require("outputs", widths.outputs, self.kind)
            words = np.ceil(self.outputs // folding.pe / 64)
            lane = lane + threshold_luts(outputs.bits, accumulator, words)
        return node_luts(folding.pe, lane, self._weight_luts(folding, weights.bits))

    def _weight_luts(self, folding: Folding, weight_bits: IntArray) -> FloatArray:
        words = (self.inputs * self.outputs) // (folding.simd * folding.pe)
        luts: FloatArray = folding.pe * folding.simd * weight_bits * np.ceil(words / 64)
        return luts * (self.ram_style == "distributed")

    def _hls_dsps(self, folding: Folding, widths: Widths) -> FloatArray:
        inputs, weights = self._operands(widths)
        per_product = np.ceil((weights.bits + inputs.bits) / 48)
        dsps: FloatArray = folding.pe * folding.simd * per_product * (self.multipliers == "dsp")
        return dsps


def _rtl_dsps(folding: Folding, dsp_block: DspBlock) -> FloatArray:
    if dsp_block == "DSP58":
        return np.asarray(folding.pe * np.ceil(folding.simd / 3))
    return np.asarray(np.ceil(folding.pe / 4) * folding.simd)
