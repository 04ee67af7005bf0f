"""Widths of accumulators and thresholds, from the data types of the operands alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from gfb_brevitas.hardware.datatypes import DataTypes, FloatArray, IntArray


def accumulator_types(terms: int, weights: DataTypes, inputs: DataTypes) -> DataTypes:
    """The narrowest type that holds every sum of ``terms`` products.

    FINN narrows accumulators further by the values of the weights
    (``matrixvectoractivation.py``, ``minimize_accumulator_width``); this is its bound by data types, with
    the range of the weights in place of their type's.

    Args:
        terms: Products per sum.
        weights: Data type of the weights.
        inputs: Data type of the inputs.
    """
    corners = np.stack(
        np.broadcast_arrays(
            weights.low * inputs.low,
            weights.low * inputs.high,
            weights.high * inputs.low,
            weights.high * inputs.high,
        )
    )
    return sum_types(terms * corners.min(axis=0), terms * corners.max(axis=0))


def sum_types(low: ArrayLike, high: ArrayLike) -> DataTypes:
    """The narrowest accumulator type for sums from ``low`` to ``high``."""
    least, most = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    negative = least < 0
    magnitude = np.where(negative, np.maximum(-least, 1.0 + most), 1.0 + most)
    bits = np.ceil(np.log2(magnitude)).astype(np.int64) + negative
    return DataTypes(bits=np.maximum(bits, 1), low=least, high=most)


def whole_bytes(bits: ArrayLike) -> IntArray:
    """``bits`` rounded up to bytes, as FINN widens the accumulator of a graph's last node."""
    rounded: IntArray = -(-np.asarray(bits, dtype=np.int64) // 8) * 8
    return rounded


def data_type_bound(terms: int, weight_bits: IntArray, input_bits: IntArray, signed: ArrayLike) -> FloatArray:
    """Bits that any sum of products fits in, from the widths alone.

    FINN: ``lut_estimation`` of ``hls/matrixvectoractivation_hls.py``; the bound of Colbert et al.,
    "Quantized Neural Networks for Low-Precision Accumulation with Guaranteed Overflow Avoidance"
    (arXiv:2301.13376, equation 8).

    Args:
        terms: Products per sum.
        weight_bits: Width of the weights, (P,).
        input_bits: Width of the inputs, (P,).
        signed: Whether the inputs are signed, (P,).
    """
    alpha = math.log(terms, 2) + weight_bits + input_bits - 1 - np.asarray(signed, dtype=np.int64)
    bits: FloatArray = np.ceil(alpha + np.log(1 + 2.0**-alpha) / math.log(2) + 1)
    return bits


def threshold_types(inputs: DataTypes) -> DataTypes:
    """The narrowest type for every threshold that makes a difference to ``inputs``.

    FINN clips thresholds to the range of the input, and one more
    (``transformation/streamline/round_thresholds.py``).
    """
    return DataTypes.of_range(inputs.low, inputs.high + 1)
