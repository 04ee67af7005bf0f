"""FINN's estimates of hardware nodes: cycles, LUTs, block RAMs, UltraRAMs and DSP blocks, vectorised.

Written from the meaning of the formulas of finn-plus 1.6.1; each names the file and the function it is from.
Given FINN's folding and data types the numbers are FINN's own.

Example:
    >>> import numpy as np
    >>> from gfb_brevitas.hardware import DataTypes, Folding, MatrixVector, Widths
    >>> node = MatrixVector(inputs=64, outputs=10)
    >>> widths = Widths(
    ...     inputs=DataTypes.unsigned([2, 4, 4]), weights=DataTypes.signed([4, 4, 2], narrow=True)
    ... )
    >>> node.resources(Folding(pe=np.array(2), simd=np.array(8)), widths, "DSP48E1").table()
    array([[630.,   2.,   0.,   0.],
           [  0.,   2.,   0.,   8.],
           [627.,   1.,   0.,   0.]])
"""

from gfb_brevitas.hardware.boards import BOARDS, Board, DspBlock, board
from gfb_brevitas.hardware.datatypes import DataTypes
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import Folding, HardwareNode, Widths
from gfb_brevitas.hardware.resources import Resources
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.hardware.streams import DuplicateStreams, Elementwise, Padding, Pool, Reshape, Shuffle
from gfb_brevitas.hardware.thresholding import Thresholding
from gfb_brevitas.hardware.vvau import VectorVector

__all__ = [
    "BOARDS",
    "Board",
    "DataTypes",
    "DspBlock",
    "DuplicateStreams",
    "Elementwise",
    "Folding",
    "HardwareNode",
    "MatrixVector",
    "Padding",
    "Pool",
    "Reshape",
    "Resources",
    "Shuffle",
    "SlidingWindow",
    "Thresholding",
    "VectorVector",
    "Widths",
    "board",
]
