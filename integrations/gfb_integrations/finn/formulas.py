"""This project's formulas on FINN's own nodes: given its folding and data types, the same numbers.

:mod:`gfb_brevitas.hardware` prices networks from bit widths alone. Here every node that FINN has arrived at
is priced by the same formulas with FINN's own widths, so that a difference is one of the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import DspBlock, dsp_block
from gfb_brevitas.hardware.datatypes import DataTypes
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import Folding, HardwareNode, Widths
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.hardware.streams import DuplicateStreams, Elementwise, Padding, Pool, Reshape, Shuffle
from gfb_brevitas.hardware.thresholding import Thresholding
from gfb_brevitas.hardware.vvau import VectorVector
from gfb_integrations.finn.estimate import FinnNode

Attributes = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the formulas give for a node.

    Attributes:
        cycles: Clock cycles per sample.
        lut: Look-up tables.
        bram_18k: Block RAMs of 18 kbit.
        uram: UltraRAMs.
        dsp: DSP slices.
    """

    cycles: int
    lut: float
    bram_18k: float
    uram: float
    dsp: float

    def differs_from(self, node: FinnNode) -> tuple[str, ...]:
        """Names of the numbers that FINN has otherwise."""
        names = ("cycles", "lut", "bram_18k", "uram", "dsp")
        return tuple(name for name in names if getattr(self, name) != getattr(node, name))


def price(node: FinnNode, part: str) -> Price:
    """Price one of FINN's nodes.

    Args:
        node: The node, with FINN's folding and data types.
        part: Part number of the FPGA.

    Raises:
        ConfigurationError: If there is no formula for its kind.
    """
    kind = node.kind.rsplit("_", 1)[0]
    rule = _RULES.get("Elementwise" if kind.startswith("Elementwise") else kind)
    if rule is None:
        raise ConfigurationError(f"There is no formula for FINN's {node.kind}, which {node.name} is.")
    shape, widths = rule(node)
    about = node.attributes
    folding = Folding(
        pe=np.array(about.get("PE", 1)),
        simd=np.array(about.get("SIMD", 1)),
        parallel_window=np.array(bool(about.get("parallel_window", 0))),
    )
    block: DspBlock = dsp_block(part)
    found = shape.resources(folding, widths, block)
    totals = {
        name: float(np.floor(getattr(found, name)).item()) for name in ("lut", "bram_18k", "uram", "dsp")
    }
    return Price(cycles=int(shape.cycles(folding).item()), **totals)


def _types(name: str) -> DataTypes:
    return DataTypes.named([name])


def _matrix_vector(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    shape = MatrixVector(
        inputs=about["MW"],
        outputs=about["MH"],
        vectors=prod(about["numInputVectors"]),
        thresholds=not about["noActivation"],
        ram_style=about["ram_style"],
        threshold_ram_style=about.get("ram_style_thresholds", "auto"),
        multipliers="dsp" if about.get("resType") == "dsp" else "lut",
    )
    return shape, _product_widths(node)


def _vector_vector(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    shape = VectorVector(
        channels=about["Channels"],
        window=prod(about["Kernel"]),
        vectors=prod(about["Dim"]),
        thresholds=not about["noActivation"],
        ram_style=about["ram_style"],
        multipliers="dsp" if about.get("resType") == "dsp" else "lut",
    )
    return shape, _product_widths(node)


def _product_widths(node: FinnNode) -> Widths:
    about = node.attributes
    weights = _types(about["weightDataType"])
    if node.kind.endswith("_rtl"):
        # FINN chose the DSP blocks by the values of the weights, which are of narrow range where it did.
        weights = DataTypes(bits=weights.bits, low=weights.low + 1, high=weights.high)
    return Widths(
        inputs=_types(about["inputDataType"]),
        weights=weights,
        outputs=_types(about["outputDataType"]),
        accumulator_bits=_types(about["accDataType"]).bits,
    )


def _thresholding(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    shape = Thresholding(channels=about["NumChannels"], vectors=prod(about["numInputVectors"]))
    widths = Widths(
        inputs=_types(about["inputDataType"]),
        outputs=_types(about["outputDataType"]),
        threshold_bits=_types(about["weightDataType"]).bits,
    )
    return shape, widths


def _sliding_window(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    shape = SlidingWindow(
        channels=about["IFMChannels"],
        kernel=tuple(about["ConvKernelDim"]),
        image=tuple(about["IFMDim"]),
        stride=tuple(about["Stride"]),
        dilation=tuple(about["Dilation"]),
        depthwise=bool(about["depthwise"]),
        ram_style=about["ram_style"],
    )
    return shape, Widths(inputs=_types(about["inputDataType"]))


def _padding(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    (height, width), (top, left, bottom, right) = about["ImgDim"], about["Padding"]
    pixels = (height + top + bottom) * (width + left + right)
    return Padding(channels=about["NumChannels"], vectors=pixels), Widths()


def _pool(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    return (
        Pool(channels=about["Channels"], vectors=prod(about["OutImgDims"]), window=prod(about["KernelSize"])),
        Widths(),
    )


def _duplicate(node: FinnNode) -> tuple[HardwareNode, Widths]:
    about = node.attributes
    return DuplicateStreams(channels=about["NumChannels"], vectors=prod(about["numInputVectors"])), Widths()


def _elementwise(node: FinnNode) -> tuple[HardwareNode, Widths]:
    *vectors, channels = node.attributes["out_shape"]
    return Elementwise(channels=channels, vectors=prod(vectors)), Widths()


def _reshape(node: FinnNode) -> tuple[HardwareNode, Widths]:
    *vectors, channels = node.attributes["out_shape"]
    return Reshape(channels=channels, vectors=prod(vectors)), Widths()


def _shuffle(node: FinnNode) -> tuple[HardwareNode, Widths]:
    *vectors, channels = node.attributes["out_shape"]
    return Shuffle(channels=channels, vectors=prod(vectors)), Widths()


_RULES: Mapping[str, Callable[[FinnNode], tuple[HardwareNode, Widths]]] = {
    "MVAU": _matrix_vector,
    "VVAU": _vector_vector,
    "Thresholding": _thresholding,
    "ConvolutionInputGenerator": _sliding_window,
    "FMPadding": _padding,
    "Pool": _pool,
    "DuplicateStreams": _duplicate,
    "Elementwise": _elementwise,
    "Reshape": _reshape,
    "Shuffle": _shuffle,
}
