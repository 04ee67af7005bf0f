"""LUTs of units that multiply and accumulate, made by HLS.

FINN: ``lut_estimation`` of ``hls/matrixvectoractivation_hls.py`` and ``hls/vectorvectoractivation_hls.py``,
after Blott et al., "FINN-R" (doi:10.1145/3242897).
"""

from __future__ import annotations

import numpy as np

from gfb_brevitas.hardware.datatypes import FloatArray, IntArray

_PER_NODE = 300
_PER_LANE = 1.1


def product_luts(simd: IntArray, operand_bits: IntArray) -> FloatArray:
    """Multipliers of one output lane.

    Args:
        simd: Products per cycle.
        operand_bits: Width of both operands together.
    """
    luts: FloatArray = simd * (2 * np.ceil(operand_bits / 6) - 1) * operand_bits
    return luts


def adder_tree_luts(simd: IntArray, operand_bits: IntArray) -> IntArray:
    """Adders of one output lane; arguments as for :func:`product_luts`."""
    luts: IntArray = operand_bits * (2 * simd - 1)
    return luts


def threshold_luts(output_bits: IntArray, accumulator_bits: FloatArray, words: FloatArray) -> FloatArray:
    """Thresholds of one output lane: their memory, in ``words`` LUT RAMs each, and their comparators."""
    thresholds = 2.0**output_bits - 1
    luts: FloatArray = thresholds * accumulator_bits * words + thresholds * accumulator_bits
    return luts


def node_luts(pe: IntArray, lane: FloatArray, memory: FloatArray) -> FloatArray:
    """The whole node: ``pe`` output lanes and the memory of the weights."""
    luts: FloatArray = np.floor(_PER_NODE + _PER_LANE * (pe * lane) + memory)
    return luts
