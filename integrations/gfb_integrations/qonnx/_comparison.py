"""Comparing an exported graph with its model, layer by layer.

Convolutions and matrix products are summed in another order by ONNX Runtime than by PyTorch. Where the
result lies within such a rounding error of a boundary between two integers, the next quantizer rounds to
the other side: a *rounding flip*, a difference of a whole step that is nobody's mistake, and that all later
layers inherit. So a graph that runs freely cannot be told apart from a wrong one by its outputs alone.

When the two part, the graph is therefore run once more, node by node. A quantizer whose values differ must
give the model's values for the model's input, and its own input must differ from that by no more than
rounding errors; else it is an error. Then the model's values take the place of the graph's, so that each
layer is judged on equal inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ExportError
from gfb_integrations.qonnx._execution import QUANTIZERS, Array, Context, ExecutableGraph
from gfb_integrations.qonnx._float_noise import Noise, float_noise
from gfb_integrations.qonnx._graph import layers_of
from gfb_integrations.qonnx._layer_outputs import LayerOutput, Recorded, recording, tensors_in
from gfb_integrations.qonnx._quiet import quietly

if TYPE_CHECKING:
    import onnx

NOISE_FACTOR = 16.0
"""How many times the rounding error of PyTorch another summation order may make. [ours]"""

SMALLEST_TOLERANCE = 1e-9
"""Absolute difference that is never counted, for tensors that are all zero. [ours]"""


@dataclass(frozen=True)
class Parting:
    """A layer that computes something else in the graph, given equal inputs."""

    layer: str
    order: float
    node: str
    largest_difference: float
    largest_value: float


@dataclass(frozen=True)
class Comparison:
    """What came of comparing one batch.

    Attributes:
        outputs: Outputs of the graph, run freely.
        expected: Outputs of the model.
        flips: Quantizers, each with a mask of the values that flipped; one entry per call.
        partings: Layers that differ beyond rounding, in the order in which the model calls them.
    """

    outputs: list[Array]
    expected: list[Array]
    flips: list[tuple[str, Array]] = field(default_factory=list)
    partings: list[Parting] = field(default_factory=list)


@dataclass(frozen=True)
class _Reference:
    """What the model computed for one batch."""

    inputs: tuple[Tensor, ...]
    outputs: list[Array]
    layers: dict[LayerOutput, Recorded]

    def value(self, layer: LayerOutput) -> Array:
        return _array(self.layers[layer].value)


class Comparator:
    """Compares one graph with one model.

    Args:
        graph: The exported graph.
        model: The model, in evaluation mode on the CPU.
        rtol: Rounding error that is allowed for, relative to the largest magnitude in a tensor.
    """

    def __init__(self, graph: ExecutableGraph, model: nn.Module, rtol: float) -> None:
        self.graph = graph
        self.model = model
        self.rtol = rtol
        self.layers = {node.output[0]: min(layers_of(node)) for node in graph.proto.node if layers_of(node)}
        self.quantized = [
            layer for node in graph.proto.node if node.op_type in QUANTIZERS for _, layer in layers_of(node)
        ]
        self.compared: set[str] = set()
        self.not_compared: set[str] = set()

    def on(self, graph: ExecutableGraph) -> Comparator:
        """A comparator of the same model with another graph."""
        return Comparator(graph, self.model, self.rtol)

    def compare(self, inputs: tuple[Tensor, ...]) -> Comparison:
        """Compare the two on one batch of the graph's own size.

        Raises:
            ExportError: If the graph cannot be run, or has another number of outputs than the model.
        """
        reference = self._reference(inputs)
        if len(reference.outputs) != len(self.graph.outputs):
            raise ExportError(
                f"The graph has {len(self.graph.outputs)} outputs and the model {len(reference.outputs)}. "
                "Give the model that the file was exported from."
            )
        feeds = {name: _array(tensor) for name, tensor in zip(self.graph.inputs, inputs, strict=True)}
        context = self.graph.run(feeds)
        outputs = [context[name] for name in self.graph.outputs]
        if self._agrees_throughout(context, reference):
            return Comparison(outputs, reference.outputs)
        flips, partings = self._step_through(feeds, reference, {})
        if partings:
            noise = float_noise(self.model, inputs, reference.layers, self.quantized)
            flips, partings = self._step_through(feeds, reference, noise)
        return Comparison(outputs, reference.outputs, flips, sorted(partings, key=lambda p: p.order))

    def _reference(self, inputs: tuple[Tensor, ...]) -> _Reference:
        with quietly(), torch.no_grad(), recording(self.model) as records:
            outputs = tensors_in(self.model(*inputs))
        layers = {record.output: record for record in records}
        return _Reference(inputs, [_array(tensor) for tensor in outputs], layers)

    def _agrees_throughout(self, context: Context, reference: _Reference) -> bool:
        agreed = True
        for tensor, (_, layer) in self.layers.items():
            expected = self._expected(tensor, layer, context, reference)
            if expected is not None:
                agreed &= self._close(context[tensor], expected)
        pairs = zip(self.graph.outputs, reference.outputs, strict=True)
        return agreed and all(self._close(context[name], expected) for name, expected in pairs)

    def _expected(
        self, tensor: str, layer: LayerOutput, context: Context, reference: _Reference
    ) -> Array | None:
        """What the model has for a tensor of the graph, in the layout of the graph."""
        computed = context[tensor]
        if layer not in reference.layers or reference.value(layer).size != computed.size:
            self.not_compared.add(layer.layer)
            return None
        self.compared.add(layer.layer)
        expected = reference.value(layer)
        producer = self.graph.wrapper.find_producer(tensor)
        if self.graph.is_constant(producer) and not self._close(computed, expected):
            return self._transposed_like(computed, expected)
        return expected

    def _transposed_like(self, computed: Array, expected: Array) -> Array:
        """Weights that the cleanup may have transposed, in the layout that comes closest."""
        layouts = [expected.transpose(axes) for axes in permutations(range(expected.ndim))]
        fitting = [layout for layout in layouts if layout.shape == computed.shape]
        return min(fitting, key=lambda layout: np.abs(computed - layout).mean(), default=expected)

    def _step_through(
        self, feeds: Mapping[str, Array], reference: _Reference, noise: Mapping[LayerOutput, Noise]
    ) -> tuple[list[tuple[str, Array]], list[Parting]]:
        flips: list[tuple[str, Array]] = []
        partings: list[Parting] = []
        context = self.graph.start(feeds)
        for node in self.graph.proto.node:
            computed = self.graph.step(node, context)
            order, layer = self.layers.get(node.output[0], (0, None))
            expected = self._expected(node.output[0], layer, context, reference) if layer else None
            if layer is None or expected is None:
                continue
            allowed = noise.get(layer, Noise())
            if self._close(computed, expected, allowed.output):
                continue
            rounded = reference.layers[layer].input
            if self._only_flips(node, context, expected, rounded, allowed.input):
                flips.append((layer.layer, np.abs(computed - expected) > self._tolerance(expected)))
            else:
                partings.append(_parting(layer.layer, order, node.name, computed, expected))
            context[node.output[0]] = expected
        for name, expected in zip(self.graph.outputs, reference.outputs, strict=True):
            if not self._close(context[name], expected, self._output_noise(name, noise)):
                partings.append(_parting("", np.inf, name, context[name], expected))
        return flips, partings

    def _only_flips(
        self, node: onnx.NodeProto, context: Context, expected: Array, rounded: Tensor | None, noise: float
    ) -> bool:
        """Whether the node is right, and only what enters it differs by rounding errors."""
        if node.op_type not in QUANTIZERS or self.graph.is_constant(node):
            return False
        entered = context[node.input[0]]
        if rounded is None or rounded.shape != entered.shape:
            return False
        given = _array(rounded)
        if largest_difference(entered, given) > self._tolerance(given, noise):
            return False
        return self._close(self.graph.step(node, {**context, node.input[0]: given}), expected)

    def _output_noise(self, output: str, noise: Mapping[LayerOutput, Noise]) -> float:
        _, layer = self.layers.get(output, (0, None))
        return noise.get(layer, Noise()).output if layer else 0.0

    def _tolerance(self, values: Array, noise: float = 0.0) -> float:
        return self.rtol * _largest(values) + NOISE_FACTOR * noise + SMALLEST_TOLERANCE

    def _close(self, computed: Array, expected: Array, noise: float = 0.0) -> bool:
        if computed.shape != expected.shape:
            return False
        return largest_difference(computed, expected) <= self._tolerance(expected, noise)


def _parting(layer: str, order: float, node: str, computed: Array, expected: Array) -> Parting:
    return Parting(layer, order, node, largest_difference(computed, expected), _largest(expected))


def largest_difference(computed: Array, expected: Array) -> float:
    """Largest absolute difference; infinite where shapes differ or one side is not a number."""
    if computed.shape != expected.shape:
        return float("inf")
    if not computed.size:
        return 0.0
    same = (computed == expected) | (np.isnan(computed) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(computed - expected))
    return float(np.nan_to_num(difference, nan=np.inf).max())


def _largest(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array
