"""Running exported graphs with QONNX's own executor."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.errors import ExportError
from gfb_integrations.qonnx._graph import readable_by_onnxruntime

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Context = dict[str, Array]
"""All tensors of a graph by name, as far as they have been computed."""

QUANTIZERS = frozenset({"Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant"})
"""Operators of QONNX that round."""


class ExecutableGraph:
    """A cleaned QONNX graph that can be run as a whole or node by node.

    Args:
        wrapper: The graph, a ``qonnx`` ``ModelWrapper``.
    """

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        self.proto: onnx.GraphProto = wrapper.graph
        self.opsets: dict[str, int] = wrapper.get_opset_imports()
        self.initializers = {tensor.name for tensor in self.proto.initializer}

    @classmethod
    def load(cls, path: Path) -> ExecutableGraph:
        """Read an ONNX file.

        Raises:
            ExportError: If the file cannot be read.
        """
        from qonnx.core.modelwrapper import ModelWrapper

        try:
            return cls(ModelWrapper(path.read_bytes()))
        except Exception as error:
            raise ExportError(f"The file {str(path)!r} cannot be read as ONNX: {error}") from error

    def with_batch_size(self, size: int) -> ExecutableGraph | None:
        """The same graph for batches of another size; ``None`` where its shapes do not allow that.

        What comes back may still be wrong where the first axis is not the batch everywhere.
        """
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.transformation.infer_shapes import InferShapes

        proto = copy.deepcopy(self.wrapper.model)
        old = self.shape(self.inputs[0])[0]
        for info in (*proto.graph.input, *proto.graph.output):
            info.type.tensor_type.shape.dim[0].dim_value = size
        del proto.graph.value_info[:]
        wrapper = ModelWrapper(proto)
        for node in wrapper.get_nodes_by_op_type("Reshape"):
            shape = wrapper.get_initializer(node.input[1])
            if shape is not None and shape[0] == old:
                wrapper.set_initializer(node.input[1], np.array([size, *shape[1:]], dtype=shape.dtype))
        try:
            graph = ExecutableGraph(wrapper.transform(InferShapes()))
        except Exception:
            return None
        reshapes = graph.wrapper.get_nodes_by_op_type("Reshape")
        fits = all(prod(graph.shape(n.input[0])) == prod(graph.shape(n.output[0])) for n in reshapes)
        return graph if fits else None

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that are fed with data."""
        return [info.name for info in self.proto.input if info.name not in self.initializers]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [info.name for info in self.proto.output]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The static shape of a tensor."""
        return tuple(self.wrapper.get_tensor_shape(tensor) or ())

    def dtype(self, tensor: str) -> np.dtype[Any]:
        """The type that ONNX stores a tensor in."""
        from onnx.helper import tensor_dtype_to_np_dtype

        return tensor_dtype_to_np_dtype(self.wrapper.get_tensor_valueinfo(tensor).type.tensor_type.elem_type)

    def run(self, feeds: Mapping[str, Array]) -> Context:
        """Run the whole graph; all tensors, those inside the graph included.

        Raises:
            ExportError: If QONNX cannot run it.
        """
        from qonnx.core.onnx_exec import execute_onnx

        with _running():
            context: Context = execute_onnx(self.wrapper, dict(feeds), return_full_exec_context=True)
        return context

    def start(self, feeds: Mapping[str, Array]) -> Context:
        """The tensors that are known before the first node runs."""
        context: Context = self.wrapper.make_empty_exec_context()
        context.update(feeds)
        return context

    def step(self, node: onnx.NodeProto, context: Context) -> Array:
        """Run one node on ``context``, where its outputs are written; its first output."""
        from qonnx.core.onnx_exec import execute_node

        with _running():
            execute_node(node, context, self.proto, self.opsets.get(node.domain, 1))
        return context[node.output[0]]

    def is_constant(self, node: onnx.NodeProto) -> bool:
        """Whether all inputs of a node are initializers, as those of a weight quantizer are."""
        return all(name in self.initializers for name in node.input)


@contextmanager
def _running() -> Iterator[None]:
    with warnings.catch_warnings(), readable_by_onnxruntime(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", module=r"qonnx\.")
        try:
            yield
        except Exception as error:
            raise ExportError(
                f"QONNX cannot run the exported graph: {error}. The model holds an operation that is outside "
                "what QONNX executes; replace it or export without verification."
            ) from error
