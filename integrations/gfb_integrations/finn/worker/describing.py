"""Hardware layers as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np
from qonnx.custom_op.registry import getCustomOp

_RESOURCES = {"lut": "LUT", "bram_18k": "BRAM_18K", "uram": "URAM", "dsp": "DSP"}


def describe_nodes(model: Any, cycles: dict[str, int], resources: dict[str, dict[str, float]]) -> list[Any]:
    """All hardware layers of a graph, in its order.

    Returns:
        Per node ``name``, ``kind`` (FINN's operator), ``inputs`` (names of nodes), ``cycles``, ``lut``,
        ``bram_18k``, ``uram``, ``dsp``, ``attributes`` (all that FINN keeps on the node),
        ``input_types`` and ``output_types`` (names of data types) and ``input_shapes``.
    """
    return [
        {
            "name": node.name,
            "kind": node.op_type,
            "inputs": [p.name for p in model.find_direct_predecessors(node) or []],
            "cycles": int(cycles.get(node.name, 0)),
            **{key: float(resources.get(node.name, {}).get(name, 0)) for key, name in _RESOURCES.items()},
            **_details(model, node),
        }
        for node in model.graph.node
    ]


def _details(model: Any, node: Any) -> dict[str, Any]:
    operation = getCustomOp(node)
    attributes = {name: _plain(operation.get_nodeattr(name)) for name in operation.get_nodeattr_types()}
    return {
        "attributes": {name: value for name, value in attributes.items() if value is not None},
        "input_types": [_type(model, name) for name in node.input],
        "output_types": [_type(model, name) for name in node.output],
        "input_shapes": [_shape(model, name) for name in node.input],
    }


def _type(model: Any, tensor: str) -> str:
    return str(model.get_tensor_datatype(tensor).name)


def _shape(model: Any, tensor: str) -> list[int]:
    return [int(n) for n in model.get_tensor_shape(tensor) or []]


def _plain(value: Any) -> Any:
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool)) else None
