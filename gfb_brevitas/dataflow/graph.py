"""A network as FINN builds it: hardware layers, and the streams between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gfb_brevitas.dataflow.types import QuantizerType, stored_weights
from gfb_brevitas.hardware.accumulators import (
    likely_sum_types,
    likely_threshold_bits,
    sum_types,
    threshold_types,
    whole_bytes,
)
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

    def widths(self, bits: Bits, positions: Iterable[int] | None = None) -> list[Widths]:
        """The data types of layers for candidates.

        Args:
            bits: Bit widths, ``(P, quantizers)``.
            positions: The layers; by default all.

        Returns:
            Types of ``(P,)``, for each of ``positions``.
        """
        wanted = range(len(self.layers)) if positions is None else positions
        streams: dict[int, DataTypes] = {}
        return [self._widths_of(position, bits, streams) for position in wanted]

    def _widths_of(self, position: int, bits: Bits, streams: dict[int, DataTypes]) -> Widths:
        layer = self.layers[position]
        sources = [self._stream_of(i, bits, streams) for i in layer.inputs]
        is_last = position not in self.consumed
        found = _widths(layer, sources or [DataTypes.float32((len(bits),))], bits, is_last=is_last)
        if isinstance(layer.node, Thresholding) and layer.inputs:
            return self._with_likely_thresholds(found, layer.inputs[0], bits, streams)
        return found

    def _with_likely_thresholds(
        self, widths: Widths, source: int, bits: Bits, streams: dict[int, DataTypes]
    ) -> Widths:
        """Thresholds of sums are narrower than what the sums could reach."""
        product = self.layers[source]
        if product.weights is None:
            return widths
        operands = self._widths_of(source, bits, streams)
        assert operands.weights is not None
        assert operands.inputs is not None
        likely = likely_threshold_bits(terms_of(product.node), operands.weights, operands.inputs)
        return replace(widths, threshold_bits=likely)

    def _stream_of(self, position: int, bits: Bits, streams: dict[int, DataTypes]) -> DataTypes:
        """What a layer puts out; only sums and what passes values on depend on what is in front of them."""
        if position not in streams:
            layer = self.layers[position]
            if layer.outputs is not None:
                streams[position] = layer.outputs.of(bits)
            else:
                found = self._widths_of(position, bits, streams).outputs
                assert found is not None
                streams[position] = found
        return streams[position]


def _widths(layer: HardwareLayer, sources: Sequence[DataTypes], bits: Bits, *, is_last: bool) -> Widths:
    """The data types of one layer."""
    source = sources[0]
    outputs = None if layer.outputs is None else layer.outputs.of(bits)
    if isinstance(layer.node, (MatrixVector, VectorVector)):
        return _product_widths(layer, source, outputs, bits, is_last=is_last)
    if isinstance(layer.node, Thresholding):
        limits = threshold_types(source).bits if source.is_integer.all() else np.asarray(FLOAT_THRESHOLD_BITS)
        return Widths(inputs=source, outputs=outputs, threshold_bits=limits)
    if layer.computes_floats:
        outputs = DataTypes.float32((len(bits),))
    elif len(sources) > 1:
        low = np.sum([s.low for s in sources], axis=0)
        outputs = sum_types(low, np.sum([s.high for s in sources], axis=0))
    return Widths(inputs=source, outputs=source if outputs is None else outputs)


def terms_of(product: HardwareNode) -> int:
    """Products per sum of a product."""
    terms: int = product.inputs if isinstance(product, MatrixVector) else product.window  # type: ignore[attr-defined]
    return terms


def _product_widths(
    layer: HardwareLayer, source: DataTypes, outputs: DataTypes | None, bits: Bits, *, is_last: bool
) -> Widths:
    assert layer.weights is not None
    weights = stored_weights(layer.weights.of(bits), source)
    sums = likely_sum_types(terms_of(layer.node), weights, source)
    if is_last and outputs is None:
        sums = DataTypes(bits=whole_bytes(sums.bits), low=sums.low, high=sums.high)
    return Widths(inputs=source, weights=weights, outputs=outputs or sums, accumulator_bits=sums.bits)
