"""The sliding window generator: turns an image stream into windows for convolutions and pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, FloatArray, IntArray
from gfb_brevitas.hardware.memory import ultra_rams
from gfb_brevitas.hardware.node import Folding, RamStyle, Widths, divisors, require, require_positive
from gfb_brevitas.hardware.resources import Resources

Pair = tuple[int, int]
"""Height and width."""

_CASCADED = 16384


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """FINN's ConvolutionInputGenerator_rtl: buffers lines, and gives out the windows of a kernel.

    FINN: ``custom_op/fpgadataflow/convolutioninputgenerator.py`` and
    ``rtl/convolutioninputgenerator_rtl.py``. A network with images of one row or one column has it too.

    Args:
        channels: Channels.
        kernel: Kernel (height, width).
        image: Input (height, width), padding included.
        stride: Stride (height, width).
        dilation: Dilation (height, width).
        depthwise: Whether windows are given out channel by channel, for depthwise products and pooling.
        ram_style: Where the line buffer goes.

    Raises:
        ConfigurationError: If a number is below 1, or the kernel or stride is larger than the image.
    """

    kind: ClassVar[str] = "ConvolutionInputGenerator"

    channels: int
    kernel: Pair
    image: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    depthwise: bool = False
    ram_style: RamStyle = "distributed"

    def __post_init__(self) -> None:
        for axis in (0, 1):
            require_positive(
                self.kind,
                channels=self.channels,
                kernel=self.kernel[axis],
                image=self.image[axis],
                stride=self.stride[axis],
                dilation=self.dilation[axis],
            )
            if max(self._extent(axis), self.stride[axis]) > self.image[axis]:
                raise ConfigurationError(
                    f"The kernel and stride of a sliding window are no larger than its image; got kernel "
                    f"{self.kernel}, dilation {self.dilation}, stride {self.stride}, image {self.image}."
                )

    @property
    def positions(self) -> Pair:
        """Output pixels (height, width)."""
        height, width = ((self.image[i] - self._extent(i)) // self.stride[i] + 1 for i in (0, 1))
        return height, width

    def foldings(self) -> Folding:
        """Divisors of the channels (SIMD), and whole windows of all channels at once.

        A depthwise generator is folded like its consumer, and gives out whole windows where that has SIMD
        above 1.
        """
        simd = divisors(self.channels)
        whole = np.zeros(len(simd) + 1, dtype=np.bool_)
        whole[-1] = True
        return Folding(simd=np.append(simd, self.channels), parallel_window=whole)

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        folds = self.channels // folding.simd
        at_once = self.image[0] * self.image[1] * folds + 2
        one_by_one = self._row_cycles(folds) if 1 in self.image else self._image_cycles(folds)
        return np.where(self._gives_whole_windows(folding), at_once, one_by_one).astype(np.float64)

    def resources(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> Resources:
        """FINN's estimate: control logic and the line buffer."""
        width = folding.simd * require("inputs", widths.inputs, self.kind).bits
        whole = self._gives_whole_windows(folding)
        depth = self._buffer_depth(folding)
        lines = np.where(whole, self._line_buffers(), 1)
        line = np.where(whole, self._line_depth(), depth)
        lut = 300 + width * np.ceil(depth / 38) * (self.ram_style == "distributed")
        return Resources(
            lut=lut,
            bram_18k=lines * _line_block_rams(width, line) * (self.ram_style in ("auto", "block")),
            uram=lines * ultra_rams(width, line) * (self.ram_style == "ultra"),
        )

    def _extent(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def _gives_whole_windows(self, folding: Folding) -> BoolArray:
        return np.asarray(folding.parallel_window | (self.kernel == (1, 1)))

    def _image_cycles(self, folds: IntArray) -> IntArray:
        rows, columns = self.positions
        first_window = self._window_span() * folds
        write = columns * self.kernel[0] * self.kernel[1] * folds
        read = self.stride[1] * self.image[1] * folds
        row = np.maximum(write, read)
        if not self.depthwise:
            return np.asarray(first_window + rows * row)
        row = row + columns * (self.stride[1] - 1) * (folds - 1)
        return np.asarray(first_window + rows * row + (self.stride[0] - 1) * self.image[1] * folds)

    def _row_cycles(self, folds: IntArray) -> IntArray:
        axis = 0 if self.image[1] == 1 else 1
        length, kernel, stride = self.image[axis], self.kernel[axis], self.stride[axis]
        columns = self.positions[axis]
        if not self.depthwise:
            return np.asarray(columns * kernel * folds + 2)
        write = columns * kernel * folds + (folds - 1) * kernel
        read = length * folds + folds * (kernel - 1) * (stride - 1)
        return np.asarray(np.maximum(write, read) + 2)

    def _window_span(self) -> int:
        """Pixels from the first to the last of a window."""
        return (self._extent(0) - 1) * self.image[1] + self._extent(1)

    def _buffer_depth(self, folding: Folding) -> IntArray:
        folds = self.channels // folding.simd
        window = self.kernel[0] * self.kernel[1]
        ahead = max(0, self.stride[1] - 1 - window) + max(0, (self.stride[0] - 1) * self.image[1] - window)
        one_by_one = (self._window_span() + ahead) * folds
        at_once = (self._window_span() - 1) * folds + 2
        return np.where(self._gives_whole_windows(folding), at_once, one_by_one)

    def _line_buffers(self) -> int:
        return 0 if 1 in self.image else self.kernel[0] - 1

    def _line_depth(self) -> int:
        return self.image[1] - self._extent(1) + self.image[1] * (self.dilation[0] - 1)


def _line_width(depth: IntArray) -> IntArray:
    """Widest word of a block RAM that is ``depth`` deep."""
    width: IntArray = np.select([depth <= 512 << i for i in range(5)], [36, 18, 9, 4, 2], 1)
    return width


def _line_block_rams(width: IntArray, depth: IntArray) -> FloatArray:
    columns = np.ceil(width / _line_width(depth))
    rest = np.ceil(width / _line_width(depth % _CASCADED))
    saved = np.where(depth > _CASCADED, columns - rest, 0.0)
    blocks: FloatArray = np.ceil(depth / _CASCADED) * columns - saved
    return blocks
