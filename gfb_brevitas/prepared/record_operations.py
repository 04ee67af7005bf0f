"""Recording what a function does with tensors, operation by operation, as a graph.

``make_fx`` does this too, for symbolic shapes and much else that is not needed here, at two milliseconds an
operation; this takes less than a tenth of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import _extract_tensor_metadata
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary, WeakTensorKeyDictionary

META = "tensor_meta"
"""Key in a node's ``meta`` that holds shape, strides and type of its value."""
PARAMETER = "parameter"
"""Key in a node's ``meta`` that holds the name of the parameter that it is."""


def record(
    function: Callable[..., list[Tensor]], tensors: Sequence[Tensor], names: Mapping[int, str]
) -> fx.GraphModule:
    """The operations of ``function(*tensors)``, which is called once.

    Tensors that it takes from elsewhere (parameters, buffers) are attributes of the graph, not copies.

    Args:
        function: Takes tensors and returns a list of tensors.
        tensors: What it is called with.
        names: Names of parameters, by their ``id``.

    Returns:
        A graph from these tensors to the list. Operations in place are recorded as such.
    """
    recorder = _Recorder(names)
    for number, tensor in enumerate(tensors):
        recorder.enters(tensor, number)
    with recorder:
        results = function(*tensors)
    recorder.graph.output([recorder.node_of(result) for result in results])
    return fx.GraphModule(recorder.root, recorder.graph)


def is_functional(recorded: fx.GraphModule) -> bool:
    """Whether no operation changes a tensor in place."""
    schemas = (getattr(node.target, "_schema", None) for node in recorded.graph.nodes)
    return not any(schema is not None and schema.is_mutable for schema in schemas)


class _Recorder(TorchDispatchMode):
    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = names
        self.graph, self.root = fx.Graph(), nn.Module()
        self._nodes: WeakIdKeyDictionary = WeakTensorKeyDictionary()
        self._constants = 0

    def enters(self, tensor: Tensor, number: int) -> None:
        node = self.graph.placeholder(f"input_{number}")
        node.meta[META] = _extract_tensor_metadata(tensor)
        self._nodes[tensor] = node

    def node_of(self, tensor: Tensor) -> fx.Node:
        node: fx.Node | None = self._nodes.get(tensor)
        return self._constant(tensor, tensor) if node is None else node

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten.lift_fresh.default:
            # Just made from numbers, each time anew: what is done to it later must not show.
            self._constant(result, args[0].clone())
            return result
        node = self.graph.call_function(func, self._taken(args), self._taken(kwargs))
        if isinstance(result, Tensor):
            self._gives(node, result)
        elif isinstance(result, tuple | list):
            node.meta[META] = pytree.tree_map_only(Tensor, _extract_tensor_metadata, result)
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._gives(self.graph.call_function(operator.getitem, (node, place)), part)
        return result

    def _taken(self, arguments: Any) -> Any:
        return pytree.tree_map_only(Tensor, self.node_of, arguments)

    def _gives(self, node: fx.Node, result: Tensor) -> None:
        node.meta[META] = _extract_tensor_metadata(result)
        self._nodes[result] = node

    def _constant(self, tensor: Tensor, kept: Tensor) -> fx.Node:
        name = f"taken_{self._constants}"
        self._constants += 1
        # Not a parameter, which would be one of a module that never trains.
        self.root.register_buffer(name, kept, persistent=False)
        node = self.graph.get_attr(name)
        node.meta[META] = _extract_tensor_metadata(kept)
        if id(tensor) in self._names:
            node.meta[PARAMETER] = self._names[id(tensor)]
        self._nodes[tensor] = node
        return node
