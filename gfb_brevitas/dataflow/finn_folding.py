"""FINN's own choice of folding, layer by layer, for a number of clock cycles per sample.

FINN: ``transformation/fpgadataflow/set_folding.py`` (SetFolding.apply) of finn-plus 1.6.1. Its second pass,
at the cycles that the slowest layer needs, is in :mod:`gfb_brevitas.dataflow.accelerator`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gfb_brevitas.dataflow.units import Unit
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, IntArray
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import MAX_STREAM_BITS, Folding, Widths, divisors
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.hardware.streams import Padding
from gfb_brevitas.hardware.vvau import VectorVector

WIDEST_WEIGHTS_PER_PE = 36
"""Bits of weights that one PE reads at once, FINN's default of ``mvau_wwidth_max``."""


def finn_folding(unit: Unit, widths: Sequence[Widths], target_cycles: int, dsp_block: DspBlock) -> Folding:
    """FINN's folding of a unit for candidates, ``(P,)``; its weights decide it where they have some.

    Args:
        unit: The unit.
        widths: Data types of its layers, of ``(P,)`` candidates.
        target_cycles: Clock cycles per sample to reach.
        dsp_block: The part's DSP block.
    """
    node = unit.layer.node
    if isinstance(node, MatrixVector):
        assert widths[-1].weights is not None
        return _of_matrix_vector(
            node, widths[-1].weights.bits, node.is_rtl(widths[-1], dsp_block), target_cycles
        )
    if unit.window is not None or isinstance(node, VectorVector):
        return _of_depthwise(unit, target_cycles)
    if isinstance(node, SlidingWindow):
        return _of_window(node, target_cycles)
    steps = divisors(node.channels)  # type: ignore[attr-defined]
    if isinstance(node, Padding):
        return Folding(simd=_first(steps, node.cycles(Folding(simd=steps)) <= target_cycles))
    return Folding(pe=_first(steps, node.cycles(Folding(pe=steps)) <= target_cycles))


def _first(steps: IntArray, reached: BoolArray) -> IntArray:
    """The first step that reaches the target, else the last."""
    return np.asarray(steps[int(np.argmax(reached)) if reached.any() else -1])


def _of_matrix_vector(
    node: MatrixVector, weight_bits: IntArray, rtl: BoolArray, target_cycles: int
) -> Folding:
    bits, is_rtl = np.broadcast_arrays(weight_bits, rtl)
    kinds, which = np.unique(np.stack([bits.ravel(), is_rtl.ravel()]), axis=1, return_inverse=True)
    chosen = np.array([_pe_and_simd(node, int(b), bool(r), target_cycles) for b, r in kinds.T])
    pe, simd = chosen[which.reshape(bits.shape)].T
    return Folding(pe=pe.T, simd=simd.T)


def _pe_and_simd(node: MatrixVector, weight_bits: int, rtl: bool, target_cycles: int) -> tuple[int, int]:
    """SIMD while the weights of a PE stay narrow, then PE while the whole stream does."""
    simd = 1
    for step in divisors(node.inputs).tolist():
        before, simd = simd, step
        if node.outputs * (node.inputs // simd) * node.vectors <= target_cycles:
            break
        if weight_bits * simd > WIDEST_WEIGHTS_PER_PE:
            simd = before
            break
    before = pe = 1
    for step in divisors(node.outputs).tolist():
        pe = step
        if weight_bits * simd * pe > MAX_STREAM_BITS and not rtl:
            return before, simd
        if (node.outputs // pe) * (node.inputs // simd) * node.vectors <= target_cycles:
            break
        before = pe
    return pe, simd


def _of_depthwise(unit: Unit, target_cycles: int) -> Folding:
    """Channels first, then elements of a window; then channels until the sliding window keeps up."""
    node = unit.layer.node
    steps = divisors(node.channels)  # type: ignore[attr-defined]
    pe = _first(steps, node.cycles(Folding(pe=steps)) <= target_cycles)
    simd = np.ones((), dtype=np.int64)
    at_most = pe == steps[-1]
    if isinstance(node, VectorVector) and at_most and node.cycles(Folding(pe=pe)) > target_cycles:
        elements = divisors(node.window)
        simd = _first(elements, node.cycles(Folding(pe=pe, simd=elements)) <= target_cycles)
    # FINN looks at the window before it lets it give out whole ones.
    if unit.window is not None and unit.window.cycles(Folding(simd=pe)) > target_cycles and not at_most:
        more = steps[steps > pe]
        pe = _first(more, unit.window.cycles(Folding(simd=more)) <= target_cycles)
    return Folding(pe=pe, simd=simd)


def _of_window(node: SlidingWindow, target_cycles: int) -> Folding:
    steps = divisors(node.channels)
    reached = node.cycles(Folding(simd=steps)) <= target_cycles
    return Folding(simd=_first(steps, reached), parallel_window=np.asarray(not reached.any()))
