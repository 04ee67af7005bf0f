"""Nodes of every kind, with widths and foldings of a few candidates."""

from __future__ import annotations

import numpy as np

from gfb_brevitas.hardware import (
    DataTypes,
    DuplicateStreams,
    Elementwise,
    HardwareNode,
    MatrixVector,
    Padding,
    Pool,
    SlidingWindow,
    Thresholding,
    VectorVector,
    Widths,
)

NODES: dict[str, HardwareNode] = {
    "matrix": MatrixVector(inputs=72, outputs=12, vectors=36),
    "matrix_fused": MatrixVector(
        inputs=72, outputs=12, vectors=36, thresholds=True, threshold_ram_style="distributed"
    ),
    "matrix_dsp": MatrixVector(inputs=72, outputs=12, ram_style="distributed", multipliers="dsp"),
    "matrix_ultra": MatrixVector(inputs=72, outputs=12, ram_style="ultra"),
    "depthwise": VectorVector(channels=24, window=9, vectors=36),
    "depthwise_fused": VectorVector(channels=24, window=9, vectors=36, thresholds=True),
    "thresholds": Thresholding(channels=24, vectors=36),
    "window": SlidingWindow(channels=8, kernel=(3, 3), image=(12, 10), stride=(2, 1)),
    "window_block": SlidingWindow(channels=8, kernel=(3, 3), image=(40, 40), ram_style="block"),
    "window_depthwise": SlidingWindow(channels=8, kernel=(3, 3), image=(12, 10), depthwise=True),
    "window_row": SlidingWindow(channels=8, kernel=(1, 3), image=(1, 20)),
    "window_pointwise": SlidingWindow(channels=8, kernel=(1, 1), image=(12, 12), stride=(2, 2)),
    "padding": Padding(channels=8, vectors=100),
    "pool": Pool(channels=8, vectors=25, window=4),
    "duplicate": DuplicateStreams(channels=8, vectors=25),
    "add": Elementwise(channels=8, vectors=25),
}
"""Constants that the formulas' branches depend on."""


def random_widths(candidates: int, seed: int) -> Widths:
    """Widths from 1 to 8 bits of everything that a node can ask for."""
    draw = np.random.default_rng(seed)
    weight_bits, input_bits, output_bits = draw.integers(1, 9, (3, candidates))
    return Widths(
        inputs=DataTypes.unsigned(input_bits),
        weights=DataTypes.signed(np.maximum(weight_bits, 2), narrow=True),
        outputs=DataTypes.unsigned(output_bits),
        accumulator_bits=draw.integers(8, 24, candidates),
        threshold_bits=draw.integers(4, 24, candidates),
    )


def member(widths: Widths, index: int) -> Widths:
    """One candidate of a population."""
    types = {
        name: DataTypes(bits=t.bits[index], low=t.low[index], high=t.high[index])
        for name in ("inputs", "weights", "outputs")
        if (t := getattr(widths, name)) is not None
    }
    numbers = {
        name: np.asarray(getattr(widths, name)[index]) for name in ("accumulator_bits", "threshold_bits")
    }
    return Widths(**types, **numbers)
