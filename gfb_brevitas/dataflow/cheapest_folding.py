"""The cheapest folding that reaches a number of clock cycles per sample [ours].

FINN raises one kind of parallelism after the other until a layer is fast enough. Here all legal foldings of a
layer are compared, and the one that takes the smallest share of the board is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gfb_brevitas.dataflow.units import Unit, against_foldings
from gfb_brevitas.hardware.boards import Board
from gfb_brevitas.hardware.datatypes import FloatArray
from gfb_brevitas.hardware.node import Folding, Widths
from gfb_brevitas.hardware.resources import Resources


def cheapest_folding(unit: Unit, widths: Sequence[Widths], target_cycles: int, board: Board) -> Folding:
    """The cheapest folding of a unit for candidates, ``(P,)``; the fastest where none reaches the target.

    Args:
        unit: The unit.
        widths: Data types of its layers, of ``(P,)`` candidates.
        target_cycles: Clock cycles per sample to reach.
        board: The board whose resources are shared out.
    """
    foldings = unit.layer.node.foldings().as_list()
    columns = [against_foldings(w) for w in widths]
    cycles = unit.cycles(foldings).max(axis=-1)
    shares = board_share(unit.resources(foldings, columns, board.dsp_block), board)
    legal = unit.is_legal(foldings, columns, board.dsp_block)
    shares, cycles, legal = np.broadcast_arrays(shares, cycles, legal)
    # Cycles count where the target is missed, the share of the board decides among equals.
    missed = np.maximum(cycles - target_cycles, 0.0)
    missed = np.where(legal, missed, np.inf)
    fewest = missed.min(axis=-1, keepdims=True)
    return foldings[np.argmin(np.where(missed <= fewest, shares, np.inf), axis=-1)]


def board_share(resources: Resources, board: Board) -> FloatArray:
    """Share of a board, summed over its resources; infinite where it lacks one that is needed."""
    used = resources.table()
    there = np.array([board.lut, board.bram_18k, board.uram, board.dsp], dtype=np.float64)
    shares = np.where(used > 0, used / np.where(there > 0, there, np.nan), 0.0)
    total: FloatArray = np.where(np.isnan(shares), np.inf, shares).sum(axis=-1)
    return total
