"""Widths of accumulators and thresholds, from the data types of the operands alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from gfb_brevitas.hardware.datatypes import DataTypes, FloatArray, IntArray

FEW_TERMS = 8
"""Sums of fewer products may well reach the bound."""


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


def likely_sum_types(terms: int, weights: DataTypes, inputs: DataTypes) -> DataTypes:
    """The accumulator that FINN is likely to end at, [ours]: half the range that the data types allow.

    Weights of both signs cannot all pull one way, so that sums of more than a few products reach half of the
    bound (:func:`accumulator_types`) at most. Unlike the bound it can be too narrow by a bit.

    Args:
        terms: Products per sum.
        weights: Data type of the weights.
        inputs: Data type of the inputs.
    """
    bound = accumulator_types(terms, weights, inputs)
    share = np.where(weights.is_signed & (terms >= FEW_TERMS), 0.5, 1.0)
    return sum_types(bound.low * share, bound.high * share)


def likely_threshold_bits(terms: int, weights: DataTypes, inputs: DataTypes) -> IntArray:
    """The width of the thresholds behind a sum, [ours]: sums spread with the square root of their terms.

    Args:
        terms: Products per sum.
        weights: Data type of the weights.
        inputs: Data type of the inputs.
    """
    largest = np.maximum(-inputs.low, inputs.high) / np.where(inputs.is_signed, 2.0, 1.0)
    spread = np.sqrt(terms) * weights.high * largest
    likely = np.ceil(np.log2(np.maximum(spread, 1.0))).astype(np.int64) + 1
    bits: IntArray = np.minimum(likely, threshold_types(likely_sum_types(terms, weights, inputs)).bits)
    return bits


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
