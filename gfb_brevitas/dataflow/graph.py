"""A network as FINN builds it: hardware layers, and the streams between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gfb_brevitas.dataflow.types import QuantizerType
from gfb_brevitas.hardware.accumulators import accumulator_types, sum_types, threshold_types, whole_bytes
from gfb_brevitas.hardware.datatypes import DataTypes
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import HardwareNode, Widths
from gfb_brevitas.hardware.thresholding import Thresholding
from gfb_brevitas.hardware.vvau import VectorVector
from gfb_brevitas.space import Bits

FLOAT_THRESHOLD_BITS = 32
"""Width of thresholds that a stream of floats is compared with."""


@dataclass(frozen=True, kw_only=True)
class HardwareLayer:
    """A hardware layer and what it reads.

    Attributes:
        name: Name of the layer of the model that it comes from.
        node: Its kind, with the constants of its shape.
        inputs: Positions of the layers that feed it; empty for the first one, which reads floats.
        weights: The integers of its weights, for products.
        outputs: The integers that it rounds to, for layers with thresholds and for truncation.
        computes_floats: Whether it scales back to floats, as the last layers do.
    """

    name: str
    node: HardwareNode
    inputs: tuple[int, ...]
    weights: QuantizerType | None = None
    outputs: QuantizerType | None = None
    computes_floats: bool = False


@dataclass(frozen=True)
class HardwareGraph:
    """The hardware layers of a network, every layer behind those that feed it.

    Attributes:
        layers: The layers.
    """

    layers: tuple[HardwareLayer, ...]

    def __iter__(self) -> Iterator[HardwareLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @cached_property
    def consumed(self) -> frozenset[int]:
        """Positions of the layers that feed another one."""
        return frozenset(index for layer in self.layers for index in layer.inputs)

    def widths(self, bits: Bits) -> list[Widths]:
        """The data types of every layer for candidates: bits ``(P, quantizers)``, types of ``(P,)``."""
        streams: list[DataTypes] = []
        found: list[Widths] = []
        for position, layer in enumerate(self.layers):
            sources = [streams[i] for i in layer.inputs] or [DataTypes.float32((len(bits),))]
            widths, stream = _widths(layer, sources, bits, is_last=position not in self.consumed)
            streams.append(stream)
            found.append(widths)
        return found


def _widths(
    layer: HardwareLayer, sources: Sequence[DataTypes], bits: Bits, *, is_last: bool
) -> tuple[Widths, DataTypes]:
    """The data types of one layer, and that of the stream that it puts out."""
    source = sources[0]
    outputs = None if layer.outputs is None else layer.outputs.of(bits)
    if isinstance(layer.node, (MatrixVector, VectorVector)):
        return _product_widths(layer, source, outputs, bits, is_last=is_last)
    if isinstance(layer.node, Thresholding):
        assert outputs is not None
        limits = threshold_types(source).bits if source.is_integer.all() else np.asarray(FLOAT_THRESHOLD_BITS)
        return Widths(inputs=source, outputs=outputs, threshold_bits=limits), outputs
    if layer.computes_floats:
        stream = DataTypes.float32((len(bits),))
    elif len(sources) > 1:
        low = np.sum([s.low for s in sources], axis=0)
        stream = sum_types(low, np.sum([s.high for s in sources], axis=0))
    else:
        stream = source if outputs is None else outputs
    return Widths(inputs=source, outputs=stream), stream


def _product_widths(
    layer: HardwareLayer, source: DataTypes, outputs: DataTypes | None, bits: Bits, *, is_last: bool
) -> tuple[Widths, DataTypes]:
    assert layer.weights is not None
    weights = layer.weights.of(bits)
    terms = layer.node.inputs if isinstance(layer.node, MatrixVector) else layer.node.window  # type: ignore[attr-defined]
    sums = accumulator_types(terms, weights, source)
    if is_last and outputs is None:
        sums = DataTypes(bits=whole_bytes(sums.bits), low=sums.low, high=sums.high)
    widths = Widths(inputs=source, weights=weights, outputs=outputs or sums, accumulator_bits=sums.bits)
    return widths, outputs or sums
