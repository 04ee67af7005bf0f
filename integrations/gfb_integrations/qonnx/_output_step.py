"""The step between neighbouring values of a graph's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gfb_integrations.qonnx._execution import ExecutableGraph

_KEEPS_VALUES = frozenset(
    {
        "Flatten",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Identity",
        "MaxPool",
        "Relu",
        "Slice",
        "Gather",
    }
)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SCALE_INPUT = {"Quant": 1, "IntQuant": 1, "BipolarQuant": 1, "Trunc": 4}


def output_step(graph: ExecutableGraph, tensor: str) -> tuple[float | None, str | None]:
    """The smallest step of a tensor over its channels, or why there is none.

    The values of a quantizer are its scale apart (twice that when it is bipolar). Those of a product of
    quantized tensors are the product of the two scales apart, whatever constant bias is added.
    """
    node = graph.wrapper.find_producer(tensor)
    if node is not None and node.op_type in _KEEPS_VALUES:
        return output_step(graph, node.input[0])
    scale, reason = _scale(graph, tensor)
    bipolar = node is not None and node.op_type == "BipolarQuant"
    return (None, reason) if scale is None else (scale * (2 if bipolar else 1), None)


def _scale(graph: ExecutableGraph, tensor: str) -> tuple[float | None, str | None]:
    node = graph.wrapper.find_producer(tensor)
    if node is None:
        return None, f"{tensor} is not quantized"
    if node.op_type in _SCALE_INPUT:
        scale = graph.wrapper.get_initializer(node.input[_SCALE_INPUT[node.op_type]])
        smallest = None if scale is None else float(np.abs(scale).min())
        return smallest, None if smallest else f"the scale of {node.name} is not a constant above 0"
    if node.op_type in _KEEPS_VALUES:
        return _scale(graph, node.input[0])
    if node.op_type in _PRODUCTS:
        return _product_of_scales(graph, node.input[0], node.input[1])
    shifted = [name for name in node.input if name not in graph.initializers]
    if node.op_type == "Add" and len(shifted) == 1:
        return _scale(graph, shifted[0])
    return None, f"the step is lost in the operation {node.op_type} ({node.name})"


def _product_of_scales(graph: ExecutableGraph, left: str, right: str) -> tuple[float | None, str | None]:
    (left_scale, left_reason), (right_scale, right_reason) = _scale(graph, left), _scale(graph, right)
    if left_scale is None or right_scale is None:
        return None, left_reason or right_reason
    return left_scale * right_scale, None
