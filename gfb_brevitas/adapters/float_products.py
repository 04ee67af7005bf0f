"""Products of a traced float model that are not PyTorch's own layers: made into such, or left and named.

A subclass of ``nn.Conv2d`` with a forward of its own, or any module that calls ``F.linear`` on a parameter,
is in a trace the call of a function on parameters. Where the weight is the parameter itself the call is one
of PyTorch's layer, by construction.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Node, map_arg

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_SIGNATURES: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _CONVOLUTION),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _TRANSPOSED),
    F.linear: ("input", "weight", "bias"),
    **dict.fromkeys((torch.matmul, operator.matmul, torch.mm), ("input", "other")),
}
_LAYERS: dict[Any, type[nn.Module]] = {
    F.conv1d: nn.Conv1d,
    F.conv2d: nn.Conv2d,
    F.conv3d: nn.Conv3d,
    F.conv_transpose1d: nn.ConvTranspose1d,
    F.conv_transpose2d: nn.ConvTranspose2d,
    F.conv_transpose3d: nn.ConvTranspose3d,
}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What was done about products that are not PyTorch's own layers.

    Attributes:
        layers: Class and path of the modules that became PyTorch's own layers.
        left: Modules whose weights are computed from parameters, so that no layer does the same.
    """

    layers: tuple[tuple[str, str], ...]
    left: tuple[nn.Module, ...]


def products_to_layers(graph: GraphModule, model: nn.Module) -> Rewritten:
    """Make products with a parameter PyTorch's layers, in place.

    Args:
        graph: The traced model.
        model: The model it was traced from, for the classes of its modules.
    """
    layers: list[tuple[str, str]] = []
    left: list[nn.Module] = []
    for node in list(graph.graph.nodes):
        names = _SIGNATURES.get(node.target) if node.op == "call_function" else None
        if names is None:
            continue
        call = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        made = _layer(graph, node, call)
        if made is not None:
            layer, owner = made
            path = _place(graph, node, owner, layer.eval())
            node.op, node.target, node.args, node.kwargs = "call_module", path, (call["input"],), {}
            layers.append((type(model.get_submodule(owner)).__name__, owner))
        elif (module := _module_of_computed_weight(model, node, call)) is not None:
            left.append(module)
    for node in reversed(graph.graph.nodes):
        if not node.users and (node.op == "get_attr" or node.target in ("t", getattr)):
            graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return Rewritten(layers=tuple(layers), left=tuple(left))


def _layer(graph: GraphModule, node: Node, call: dict[str, Any]) -> tuple[nn.Module, str] | None:
    """The layer that computes a call, and the path of the module whose weight it has."""
    weight_node, turned = _weight(call)
    weight = _parameter(graph, weight_node)
    bias = _parameter(graph, call.get("bias"))
    constants = {k: v for k, v in call.items() if k not in ("input", "weight", "bias", "other")}
    if weight is None or (bias is None) != (call.get("bias") is None) or _nodes_in(constants):
        return None
    if (
        not isinstance(call["input"], Node)
        or (turned and weight.dim() != 2)
        or not weight.is_floating_point()
    ):
        return None
    owner = str(cast(Node, weight_node).target).rpartition(".")[0]
    kind = _LAYERS.get(node.target)
    if kind is None:
        value = nn.Parameter(weight.detach().t().contiguous()) if turned else weight
        layer: nn.Module = nn.Linear(value.shape[1], value.shape[0], bias is not None, device="meta")
    else:
        layer, value = _convolution(kind, weight, bias is not None, constants), weight
    layer.weight = _as_parameter(value)
    layer.register_parameter("bias", None if bias is None else _as_parameter(bias))
    return layer, owner


def _weight(call: dict[str, Any]) -> tuple[Any, bool]:
    """The node of a weight, and whether it has its inputs in rows."""
    if "weight" in call:
        return call["weight"], False
    other = call.get("other")
    if isinstance(other, Node) and other.op == "call_method" and other.target == "t":
        return other.args[0], False
    if isinstance(other, Node) and other.target is getattr and other.args[1] in ("T", "mT"):
        return other.args[0], False
    return other, True


def _convolution(kind: type[nn.Module], weight: Tensor, bias: bool, constants: dict[str, Any]) -> nn.Module:
    groups = int(constants.get("groups", 1))
    transposed = kind not in _CONVOLUTIONS
    outputs, inputs = weight.shape[:2]
    if transposed:
        outputs, inputs = inputs * groups, outputs
    else:
        inputs *= groups
    dims = weight.dim() - 2
    settings = {
        name: value if isinstance(value, str) else _of_length(value, dims)
        for name, value in constants.items()
        if name != "groups"
    }
    make = cast(Callable[..., nn.Module], kind)
    return make(inputs, outputs, tuple(weight.shape[2:]), groups=groups, bias=bias, device="meta", **settings)


def _of_length(value: Any, length: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * length if len(values) == 1 else values


def _as_parameter(value: Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value)


def _parameter(graph: GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), name, None)
    return value if isinstance(value, Tensor) else None


def _place(graph: GraphModule, node: Node, owner: str, layer: nn.Module) -> str:
    """Put a layer in the place of the module whose weight it has, or within it where that does more."""
    inside = [n for n in graph.graph.nodes if str(n.target).startswith(f"{owner}.")]
    parts = [n for n in inside if n.op == "call_module"]
    called = any(n.op == "call_module" and n.target == owner for n in graph.graph.nodes)
    if owner and not called and all(n in parts or set(n.users) <= {node} for n in inside):
        for part in parts:
            path = f"{owner}_{str(part.target)[len(owner) + 1 :].replace('.', '_')}"
            _set(graph, path, graph.get_submodule(str(part.target)))
            part.target = path
        _set(graph, owner, layer)
        return owner
    name = f"{owner}.{node.name}".lstrip(".")
    while hasattr(graph.get_submodule(owner), name.rpartition(".")[2]):
        name += "_"
    _set(graph, name, layer)
    return name


def _set(graph: GraphModule, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    graph.get_submodule(owner).add_module(name, module)


def _module_of_computed_weight(model: nn.Module, node: Node, call: dict[str, Any]) -> nn.Module | None:
    weight = call.get("weight", call.get("other"))
    if not isinstance(weight, Node) or _reads_inputs(weight):
        return None
    path = next(reversed(node.meta.get("nn_module_stack") or {"": None}))
    return model.get_submodule(path) if path else None


def _reads_inputs(node: Node) -> bool:
    seen, waiting = {node}, [node]
    while waiting:
        current = waiting.pop()
        if current.op == "placeholder":
            return True
        waiting += [n for n in current.all_input_nodes if n not in seen]
        seen.update(current.all_input_nodes)
    return False


def _nodes_in(value: Any) -> bool:
    found: list[Node] = []
    map_arg(value, found.append)
    return bool(found)
