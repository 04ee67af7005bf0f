"""From a Brevitas model to a cleaned QONNX graph whose nodes know the layers that they compute."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gfb_brevitas.errors import ExportError
from gfb_integrations.qonnx._layer_outputs import LayerOutput, recording, tensors_in
from gfb_integrations.qonnx._quiet import importing_exporters

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10
"""The first ONNX IR version with metadata on nodes; ONNX Runtime reads it since 1.18."""

LAYERS_KEY = "gfb_brevitas.layer_outputs"
"""Key of the node metadata that holds the layer outputs that the node computes."""


class _WithLayerOutputs(nn.Module):
    """Returns a model's outputs and then the outputs of all its layers, as one flat tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.outputs = 0
        self.layers: list[LayerOutput] = []

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with recording(self.model) as records:
            outputs = tensors_in(self.model(*inputs))
        self.outputs = len(outputs)
        self.layers = [record.output for record in records]
        return (*outputs, *(record.value for record in records))


def trace(model: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> onnx.ModelProto:
    """Export ``model`` with Brevitas and note on the nodes which layers they compute.

    ``model`` is changed by this; give it a copy.
    """
    manager, refuse_unexportable = _import_manager()
    refuse_unexportable(model)
    traced = _WithLayerOutputs(model)
    proto: onnx.ModelProto = manager.export(
        traced, args=inputs, dynamo=False, opset_version=opset, disable_warnings=False
    )
    _note_layers(proto.graph, traced.outputs, traced.layers)
    return proto


def clean(proto: onnx.ModelProto) -> Any:
    """Run QONNX's cleanup, infer shapes and data types; a ``qonnx`` ``ModelWrapper``."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes
    from qonnx.util.cleanup import cleanup_model

    with readable_by_onnxruntime():
        graph = cleanup_model(ModelWrapper(proto))
        graph = graph.transform(InferShapes())
        graph = graph.transform(InferDataTypes(allow_scaledint_dtypes=True))
    graph.model.ir_version = IR_VERSION
    _require_static_shapes(graph)
    return graph


@contextmanager
def readable_by_onnxruntime() -> Iterator[None]:
    """Let QONNX run single nodes: ONNX writes a newer IR version than ONNX Runtime reads."""
    import qonnx.core.onnx_exec as execution

    original = execution.qonnx_make_model
    execution.qonnx_make_model = partial(original, ir_version=IR_VERSION)
    try:
        yield
    finally:
        execution.qonnx_make_model = original


def layers_of(node: onnx.NodeProto) -> list[tuple[int, LayerOutput]]:
    """The layer outputs that a node of an exported graph computes, each with its place in time."""
    for entry in node.metadata_props:
        if entry.key == LAYERS_KEY:
            return [(order, LayerOutput(*output)) for order, *output in json.loads(entry.value)]
    return []


def _import_manager() -> tuple[Any, Callable[[nn.Module], None]]:
    with importing_exporters():
        from gfb_integrations.qonnx._manager import CheckedQONNXManager, refuse_unexportable
    return CheckedQONNXManager, refuse_unexportable


def _require_static_shapes(graph: Any) -> None:
    for node in graph.graph.node:
        for name in node.output:
            shape = graph.get_tensor_shape(name)
            if shape is None or 0 in shape:
                layers = [layer.layer for _, layer in layers_of(node)]
                where = f" in the layer {layers[0]!r}" if layers else ""
                raise ExportError(
                    f"The shape that {node.op_type} ({node.name}) returns{where} depends on the data; "
                    "QONNX needs shapes that follow from the input's. Replace the operation."
                )


def _note_layers(graph: onnx.GraphProto, outputs: int, layers: Sequence[LayerOutput]) -> None:
    producers = {name: node for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in node.input}
    noted: dict[str, list[tuple[int, str, int, int]]] = {}
    for order, (layer, info) in enumerate(zip(layers, graph.output[outputs:], strict=True)):
        name = info.name
        # The exporter copies a tensor that is an output twice.
        while name in producers and producers[name].op_type == "Identity" and name not in read:
            name = producers[name].input[0]
        noted.setdefault(name, []).append((order, layer.layer, layer.call, layer.index))
    for name, entries in noted.items():
        if name in producers and producers[name].output[0] == name:
            producers[name].metadata_props.add(key=LAYERS_KEY, value=json.dumps(entries))
    del graph.output[outputs:]
    _remove_dead_nodes(graph)


def _remove_dead_nodes(graph: onnx.GraphProto) -> None:
    alive = {info.name for info in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if alive.isdisjoint(node.output):
            del graph.node[index]
        else:
            alive.update(node.input)
