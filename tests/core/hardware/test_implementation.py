"""HLS or RTL, by the widths, the thresholds and the part."""

from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.hardware import DataTypes, MatrixVector, VectorVector, Widths


def _widths(inputs: DataTypes, weights: DataTypes) -> Widths:
    return Widths(inputs=inputs, weights=weights)


def test_four_bits_of_both_operands_make_a_unit_of_dsps():
    bits = np.arange(1, 9)
    inputs, weights = (b.ravel() for b in np.meshgrid(bits, bits))
    widths = _widths(DataTypes.unsigned(inputs), DataTypes.signed(np.maximum(weights, 2), narrow=True))
    found = MatrixVector(inputs=64, outputs=8).is_rtl(widths, "DSP48E1")
    np.testing.assert_array_equal(found, (inputs >= 4) & (weights >= 4))


@pytest.mark.parametrize("block, possible", [("DSP48E1", False), ("DSP48E2", True), ("DSP58", True)])
def test_a_7_series_part_wants_weights_of_narrow_range(block, possible):
    node = MatrixVector(inputs=64, outputs=8)
    widths = _widths(DataTypes.unsigned(4), DataTypes.signed(4))
    assert node.is_rtl(widths, block) == possible
    assert node.is_rtl(_widths(DataTypes.unsigned(4), DataTypes.signed(4, narrow=True)), block)


def test_fused_thresholds_and_unsigned_weights_are_made_by_hls():
    narrow = DataTypes.signed(4, narrow=True)
    fused = MatrixVector(inputs=64, outputs=8, thresholds=True)
    assert not fused.is_rtl(_widths(DataTypes.unsigned(4), narrow), "DSP58")
    plain = MatrixVector(inputs=64, outputs=8)
    assert not plain.is_rtl(_widths(DataTypes.unsigned(4), DataTypes.unsigned(4)), "DSP58")


@pytest.mark.parametrize("block, limit", [("DSP48E1", 48), ("DSP58", 58)])
def test_accumulators_fit_the_dsp(block, limit):
    types = {"inputs": DataTypes.unsigned(8), "weights": DataTypes.signed(8, narrow=True)}
    bits = np.array([limit, limit + 1])
    found = MatrixVector(inputs=64, outputs=8).is_rtl(Widths(**types, accumulator_bits=bits), block)
    assert found.tolist() == [True, False]


def test_depthwise_units_are_made_of_dsps_on_versal_alone():
    widths = _widths(DataTypes.unsigned(4), DataTypes.signed(4, narrow=True))
    node = VectorVector(channels=8, window=9, vectors=4)
    assert [bool(node.is_rtl(widths, block)) for block in ("DSP48E1", "DSP48E2", "DSP58")] == [
        False,
        False,
        True,
    ]
