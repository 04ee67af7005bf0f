"""HLS or RTL: which of its two implementations FINN gives a node.

FINN: ``transformation/fpgadataflow/specialize_layers.py``, _determine_impl_style, _mvu_rtl_possible and
_vvu_rtl_possible, at its default settings.
"""

from __future__ import annotations

import numpy as np

from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, DataTypes, IntArray

_LIMITS: dict[DspBlock, tuple[int, int, int]] = {
    "DSP48E1": (18, 25, 48),
    "DSP48E2": (18, 27, 48),
    "DSP58": (24, 27, 58),
}
"""Widest activation, weight and accumulator (``util/basic.py``, get_dsp_datapath_limits)."""


def matrix_vector_is_rtl(
    inputs: DataTypes,
    weights: DataTypes,
    accumulator_bits: IntArray,
    *,
    thresholds: bool,
    dsp_block: DspBlock,
) -> BoolArray:
    """Whether a matrix-vector unit is made of DSP blocks (RTL) and not of LUTs (HLS).

    Only without fused thresholds, with both operands of 4 bits and more, signed weights, and on a 7-series
    part weights of narrow range.

    Args:
        inputs: Data type of the inputs, (P,).
        weights: Data type of the weights, (P,).
        accumulator_bits: Width of the result, (P,).
        thresholds: Whether thresholds are fused.
        dsp_block: The part's DSP block.
    """
    most_input, most_weight, most_accumulator = _LIMITS[dsp_block]
    narrow_enough = weights.is_narrow | (dsp_block != "DSP48E1")
    fits = (
        (inputs.bits - inputs.is_signed < most_input)
        & (weights.bits <= most_weight)
        & (np.asarray(accumulator_bits) <= most_accumulator)
    )
    wide = (inputs.bits >= 4) & (weights.bits >= 4) & weights.is_signed
    return np.asarray(wide & fits & narrow_enough & (not thresholds))


def depthwise_is_rtl(
    inputs: DataTypes, weights: DataTypes, *, thresholds: bool, dsp_block: DspBlock
) -> BoolArray:
    """Whether a depthwise unit is made of DSP blocks (RTL): on Versal parts only.

    Args:
        inputs: Data type of the inputs, (P,).
        weights: Data type of the weights, (P,).
        thresholds: Whether thresholds are fused.
        dsp_block: The part's DSP block.
    """
    wide = (inputs.bits >= 4) & (weights.bits >= 4) & weights.is_signed
    fits = ((inputs.bits <= 8) | ((inputs.bits == 9) & inputs.is_signed)) & (weights.bits <= 8)
    return np.asarray(wide & fits & (not thresholds and dsp_block == "DSP58"))
