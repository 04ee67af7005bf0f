"""From a model's layers to the hardware layers that FINN makes of them.

The rules are those of FINN's conversion at its default steps, with residual networks streamlined
(``transformation/fpgadataflow/convert_to_hw`` of finn-plus 1.6.1): a quantizer of an activation becomes
thresholds, fused into the product in front of it or in a layer of its own; BatchNorm and biases go into the
thresholds; convolutions are sliding windows and matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

from gfb_brevitas.dataflow.graph import HardwareGraph, HardwareLayer
from gfb_brevitas.dataflow.types import QuantizerType
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import HardwareNode
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.hardware.streams import DuplicateStreams, Elementwise, Padding, Pool, Reshape, Shuffle
from gfb_brevitas.hardware.thresholding import Thresholding
from gfb_brevitas.hardware.vvau import VectorVector
from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_brevitas.profile import ModelProfile

IMAGE_AXES = 3
"""Axes of an image without the batch: channels, height and width."""


def hardware_graph(profile: ModelProfile, *, standalone_thresholds: bool = False) -> HardwareGraph:
    """The hardware layers of a searchable model.

    Args:
        profile: The model's quantizers and layers.
        standalone_thresholds: Whether activations become layers of their own.

    Raises:
        ConfigurationError: If FINN has no hardware layer for something that the model does; names the layer.
    """
    for found in profile.unknown_operators:
        where = f"the layer {found.layer!r} of the model" if found.layer else "the model itself"
        raise ConfigurationError(
            f"FINN has no hardware layer for the operator {found.name}, which {where} runs. Hardware costs "
            "are defined for networks that FINN builds: write it with other operators."
        )
    builder = _Builder(profile, standalone_thresholds)
    for node in profile.layers:
        builder.add(node)
    return HardwareGraph(tuple(_with_duplicates(builder.layers)))


class _Builder:
    """Hardware layers so far, and which one makes the values of each layer of the model."""

    def __init__(self, profile: ModelProfile, standalone_thresholds: bool) -> None:
        self.layers: list[HardwareLayer] = []
        self._profile = profile
        self._graph: LayerGraph = profile.layers
        self._standalone = standalone_thresholds
        self._source: dict[str, int | None] = {}
        self._scaled: dict[str, bool] = {}  # whether float operations wait for a quantizer
        self._rules: Mapping[str, Callable[[LayerNode], int | None]] = {
            "input": lambda _: None,
            "quantize": self._quantize,
            "conv": self._convolution,
            "linear": self._linear,
            "max_pool": self._pool,
            "avg_pool": self._pool,
            "add": self._add,
            "mul": self._scale,
            "batch_norm": self._scale,
            "relu": self._scale,
            "reshape": self._pass_on,
            "output": self._output,
        }

    def add(self, node: LayerNode) -> None:
        """Add what FINN makes of one layer of the model."""
        rule = self._rules.get(node.op)
        if rule is None and self._is_left_to_software(node):
            rule = self._pass_on
        if rule is None:
            raise _unmapped(node, f"the operation {node.attributes.get('target', node.op)}")
        self._source[node.name] = rule(node)

    def _read(self, node: LayerNode, which: int = 0) -> int:
        source = self._source[node.inputs[which]]
        if source is None:
            raise _unmapped(
                node, "a first layer without a quantizer in front of it; begin the model with a QuantIdentity"
            )
        return source

    def _append(self, node: LayerNode, kind: HardwareNode, *inputs: int, **others: object) -> int:
        self.layers.append(HardwareLayer(name=node.name, node=kind, inputs=inputs, **others))  # type: ignore[arg-type]
        return len(self.layers) - 1

    # --- values that stay where they are

    def _pass_on(self, node: LayerNode) -> int | None:
        if self._source[node.inputs[0]] is None and not self.layers:
            # FINN leaves ONNX's Flatten in front of the first layer to the host; a Reshape is hardware.
            flattens = "flatten" in node.attributes["target"]
            if flattens or len(node.shape) == len(self._graph.producers(node)[0].shape):
                return None
            channels, vectors = _channels_and_vectors(node.shape)
            return self._append(node, Reshape(channels=channels, vectors=vectors))
        self._scaled[node.name] = self._scaled.get(node.inputs[0], False)
        return self._source[node.inputs[0]]

    def _scale(self, node: LayerNode) -> int | None:
        """What the next thresholds take up, or what is computed in floats at the end."""
        if node.op == "mul" and not node.attributes["constant"]:
            raise _unmapped(node, "a product of two activations")
        if node.op in ("add", "mul") and not node.attributes["per_channel"]:
            raise _unmapped(node, "a constant per value, or one that activations are taken from")
        self._scaled[node.name] = True
        return self._source[node.inputs[0]]

    def _is_left_to_software(self, node: LayerNode) -> bool:
        """Whether only operations that FINN does not build follow, up to the output: softmax, the largest."""
        return self._is_software(node) and all(
            reader.op == "output" or self._is_left_to_software(reader)
            for reader in self._graph.consumers(node)
        )

    @staticmethod
    def _is_software(node: LayerNode) -> bool:
        return node.op == "other" and not node.attributes.get("multiplies", False)

    # --- rounding

    def _quantize(self, node: LayerNode) -> int:
        about = node.attributes
        if about["bits"] is None:
            raise _unmapped(node, "a quantizer without integer widths")
        outputs = self._type(about["quantizer"], about["bits"], about["signed"], about["narrow_range"])
        source = self._source[node.inputs[0]]
        if about["kind"] == "truncation":
            position = self._read(node)
            self.layers[position] = replace(self.layers[position], outputs=outputs)
            return position
        if source is not None and self._fuses(node, source):
            layer = self.layers[source]
            fused: HardwareNode = replace(layer.node, thresholds=True)  # type: ignore[type-var]
            self.layers[source] = replace(layer, node=fused, outputs=outputs)
            return source
        channels, vectors = _channels_and_vectors(node.shape)
        inputs = () if source is None else (source,)
        return self._append(node, Thresholding(channels=channels, vectors=vectors), *inputs, outputs=outputs)

    def _fuses(self, node: LayerNode, source: int) -> bool:
        """Whether thresholds go into the product: nothing else may read what it puts out."""
        if self._standalone or not isinstance(self.layers[source].node, (MatrixVector, VectorVector)):
            return False
        if self.layers[source].outputs is not None:
            return False
        while node.op not in ("conv", "linear"):
            (node,) = self._graph.producers(node)
            if len(self._graph.consumers(node)) > 1:
                return False
        return True

    def _type(self, name: str | None, bits: float, signed: bool, narrow: bool) -> QuantizerType:
        searched = name is not None and name in self._profile.names
        return QuantizerType(
            column=self._profile.column(str(name)) if searched else None,
            bits=int(bits),
            signed=signed,
            narrow_range=narrow,
        )

    # --- products

    def _convolution(self, node: LayerNode) -> int:
        about = node.attributes
        kernel, stride, padding = about["kernel"], about["stride"], about["padding"]
        channels, groups = about["in_channels"], about["groups"]
        depthwise = groups == channels == about["out_channels"]
        if len(kernel) != 2 or about["transposed"] or (groups > 1 and not depthwise):
            raise _unmapped(node, "a convolution that is transposed, grouped, or not two-dimensional")
        source = self._read(node)
        if kernel != (1, 1) or stride != (1, 1) or any(padding):
            source = self._windows(node, source, depthwise)
        vectors = prod(node.shape[1:])
        product: HardwareNode
        if depthwise:
            product = VectorVector(channels=channels, window=prod(kernel), vectors=vectors)
        else:
            product = MatrixVector(
                inputs=channels * prod(kernel), outputs=about["out_channels"], vectors=vectors
            )
        return self._append(node, product, source, weights=self._weights(node))

    def _linear(self, node: LayerNode) -> int:
        about = node.attributes
        product = MatrixVector(
            inputs=about["in_features"], outputs=about["out_features"], vectors=about["vectors"]
        )
        return self._append(node, product, self._read(node), weights=self._weights(node))

    def _weights(self, node: LayerNode) -> QuantizerType:
        about = node.attributes
        if about["weight_bits"] is None:
            raise _unmapped(node, "weights without a quantizer")
        return self._type(
            about["weight_quantizer"],
            about["weight_bits"],
            about["weight_signed"],
            about["weight_narrow_range"],
        )

    def _windows(self, node: LayerNode, source: int, depthwise: bool) -> int:
        """Padding, where there is some, and a sliding window."""
        about = node.attributes
        channels, height, width = self._graph.producers(node)[0].shape
        rows, columns = height + 2 * about["padding"][0], width + 2 * about["padding"][1]
        if any(about["padding"]):
            source = self._append(node, Padding(channels=channels, vectors=rows * columns), source)
        window = SlidingWindow(
            channels=channels,
            kernel=about["kernel"],
            image=(rows, columns),
            stride=about["stride"],
            dilation=about.get("dilation", (1, 1)),
            depthwise=depthwise,
        )
        return self._append(node, window, source)

    # --- others

    def _pool(self, node: LayerNode) -> int:
        kernel = node.attributes["kernel"]
        if len(kernel) != 2:
            raise _unmapped(node, "a pooling that is not two-dimensional")
        source = self._windows(node, self._read(node), depthwise=True)
        channels, vectors = _channels_and_vectors(node.shape)
        return self._append(node, Pool(channels=channels, vectors=vectors, window=prod(kernel)), source)

    def _add(self, node: LayerNode) -> int | None:
        if node.attributes["constant"] or len(node.inputs) < 2:
            return self._scale(node)
        if node.attributes["factor"] != 1:
            raise _unmapped(node, "a difference of activations")
        channels, vectors = _channels_and_vectors(node.shape)
        sources = (self._read(node, 0), self._read(node, 1))
        return self._append(node, Elementwise(channels=channels, vectors=vectors), *sources)

    def _output(self, node: LayerNode) -> int:
        """Back to real numbers: the scale, and what is added."""
        source = self._read(node)
        shape, flattened = self._shape_at_output(node)
        adds_floats = self._adds_floats(node, self.layers[source])
        shuffles = len(shape) == IMAGE_AXES
        channels, vectors = _channels_and_vectors(shape)
        if flattened and not adds_floats:  # the scale alone comes in front of the flattening
            scaled = Elementwise(channels=channels, vectors=vectors, operation="Mul")
            source = self._append(node, scaled, source, computes_floats=True)
            if shuffles and vectors > 1:
                source = self._append(node, Shuffle(channels=channels, vectors=vectors), source)
            return source
        if shuffles:
            source = self._append(node, Shuffle(channels=channels, vectors=vectors), source)
        scaled = Elementwise(channels=shape[-1], vectors=prod(shape[:-1]), operation="Mul")
        source = self._append(node, scaled, source, computes_floats=True)
        if adds_floats:
            source = self._append(node, replace(scaled, operation="Add"), source, computes_floats=True)
        return source

    def _shape_at_output(self, node: LayerNode) -> tuple[tuple[int, ...], bool]:
        """The shape of what the last layer puts out, and whether it is flattened on its way."""
        shape, made = node.shape, self._graph.producers(node)[0]
        while made.op == "reshape":
            made = self._graph.producers(made)[0]
        is_image = len(made.shape) == IMAGE_AXES and len(shape) != IMAGE_AXES
        return (made.shape, True) if is_image else (shape, False)

    def _adds_floats(self, node: LayerNode, last: HardwareLayer) -> bool:
        if last.outputs is not None:
            return False
        product = self._graph[last.name] if last.weights is not None else None
        return bool(product is not None and product.attributes["bias"]) or self._scaled.get(
            node.inputs[0], False
        )


def _with_duplicates(layers: list[HardwareLayer]) -> list[HardwareLayer]:
    """A layer behind every one that feeds several."""
    readers = [sum(layer.inputs.count(i) for layer in layers) for i in range(len(layers))]
    position: dict[int, int] = {}
    result: list[HardwareLayer] = []
    for index, layer in enumerate(layers):
        result.append(replace(layer, inputs=tuple(position[i] for i in layer.inputs)))
        if readers[index] > 1:
            channels, vectors = _stream_shape(layer.node)
            copies = DuplicateStreams(channels=channels, vectors=vectors)
            result.append(HardwareLayer(name=layer.name, node=copies, inputs=(len(result) - 1,)))
        position[index] = len(result) - 1
    return result


def _stream_shape(node: HardwareNode) -> tuple[int, int]:
    """Channels and vectors per sample that a node puts out."""
    channels = node.outputs if isinstance(node, MatrixVector) else node.channels  # type: ignore[attr-defined]
    return channels, node.vectors  # type: ignore[attr-defined]


def _channels_and_vectors(shape: tuple[int, ...]) -> tuple[int, int]:
    """Of a shape without the batch dimension: images have channels first, everything else last."""
    if len(shape) == IMAGE_AXES:
        return shape[0], shape[1] * shape[2]
    return shape[-1], prod(shape[:-1])


def _unmapped(node: LayerNode, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"FINN has no hardware layer for {what}, which the layer {node.name!r} of the model has. Hardware "
        "costs are defined for networks that FINN builds; `gfb finn check` says what to change."
    )
