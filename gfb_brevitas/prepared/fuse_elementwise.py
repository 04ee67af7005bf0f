"""Graph pass: chains of element-wise operations become one pass over memory each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.site_values import decode, encode, round_to_scale
from gfb_brevitas.quant.compiling import compiled

aten = torch.ops.aten
_ROUNDINGS = {encode, decode, round_to_scale}
_ELEMENTWISE: set[Any] = _ROUNDINGS | {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.rsub.Scalar,
    aten.neg.default,
    aten.abs.default,
    aten.relu.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.minimum.default,
    aten.maximum.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.silu.default,
    aten.gelu.default,
    aten.leaky_relu.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.exp.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.round.default,
    aten.floor.default,
    aten.pow.Tensor_Scalar,
    aten.where.self,
    aten.gt.Tensor,
    aten.lt.Tensor,
    aten.ge.Scalar,
    aten.gt.Scalar,
    aten.lt.Scalar,
}


def fuse_elementwise(graph: fx.Graph) -> None:
    """Replace every group of element-wise nodes that feed each other only, in place."""
    from_input = set(depends_on_input(graph))
    candidates = {n for n in from_input if n.op == "call_function" and n.target in _ELEMENTWISE}
    order = {node: number for number, node in enumerate(graph.nodes)}
    kernels: dict[str, Callable[..., Tensor]] = {}
    for root in sorted(candidates, key=order.__getitem__, reverse=True):
        if root not in candidates:
            continue
        group = _group(root, candidates)
        candidates -= group
        if len(group) > 1 or root.target in _ROUNDINGS:
            _replace(graph, root, sorted(group, key=order.__getitem__), kernels)


def _group(root: fx.Node, candidates: set[fx.Node]) -> set[fx.Node]:
    group = {root}
    waiting = list(root.all_input_nodes)
    while waiting:
        node = waiting.pop()
        if node in candidates and node not in group and all(user in group for user in node.users):
            group.add(node)
            waiting += node.all_input_nodes
    return group


def _replace(
    graph: fx.Graph, root: fx.Node, group: list[fx.Node], kernels: dict[str, Callable[..., Tensor]]
) -> None:
    members = set(group)
    sources = list(dict.fromkeys(s for node in group for s in node.all_input_nodes if s not in members))
    inner = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {s: inner.placeholder(f"a{i}") for i, s in enumerate(sources)}
    for number, node in enumerate(group):
        copies[node] = inner.node_copy(node, copies.__getitem__)
        copies[node].name = f"b{number}"
    inner.output(copies[root])
    module = fx.GraphModule(nn.Module(), inner)
    kernel = kernels.setdefault(module.code, Kernel(module.forward))
    with graph.inserting_before(root):
        replacement = graph.call_function(kernel, tuple(sources))
    replacement.meta = dict(root.meta)
    root.replace_all_uses_with(replacement)
    for node in reversed(group):
        graph.erase_node(node)


class Kernel:
    """A fused group, as a function of the tensors that enter it."""

    __name__ = "kernel"
    worth_keeping = True

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = compiled(function)

    def __call__(self, *arguments: Any) -> Tensor:
        """The group's result."""
        result: Tensor = self._function(*arguments)
        return result
