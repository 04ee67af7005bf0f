"""Graph pass: chains of element-wise operations become one pass over memory each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.loop_kernel import LoopKernel
from gfb_brevitas.prepared.loop_source import can_be_written
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


def fuse_elementwise(graph: fx.Graph, *, on_cpu: bool) -> None:
    """Replace every group of element-wise nodes that feed each other only, in place.

    Args:
        graph: The graph.
        on_cpu: Whether it runs on the CPU, where groups become loops of C++ (:class:`LoopKernel`); elsewhere
            torch.compile makes kernels of them.
    """
    from_input = set(depends_on_input(graph))
    fits = can_be_written if on_cpu else _is_elementwise
    candidates = {n for n in from_input if n.op == "call_function" and fits(n)}
    order = {node: number for number, node in enumerate(graph.nodes)}
    kernels: dict[str, Callable[..., Tensor]] = {}
    replace = _replace_by_loop if on_cpu else _replace
    for root in sorted(candidates, key=order.__getitem__, reverse=True):
        if root not in candidates:
            continue
        group = _group(root, candidates)
        candidates -= group
        if len(group) > 1 or root.target in _ROUNDINGS:
            replace(graph, root, sorted(group, key=order.__getitem__), kernels)


def _is_elementwise(node: fx.Node) -> bool:
    return node.target in _ELEMENTWISE


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


def _replace_by_loop(
    graph: fx.Graph, root: fx.Node, group: list[fx.Node], kernels: dict[str, Callable[..., Tensor]]
) -> None:
    """Numbers become arguments, so that layers that differ in them share a loop."""
    members = set(group)
    inner = fx.Graph()
    copies: dict[Any, fx.Node] = {}
    arguments: list[Any] = []

    def entering(argument: Any) -> Any:
        if argument is None or argument in members:
            return copies.get(argument)
        key = argument if isinstance(argument, fx.Node) else (type(argument), argument)
        if key not in copies:
            arguments.append(argument)
            copies[key] = inner.placeholder(f"a{len(arguments)}")
        return copies[key]

    wanted = [[entering(a) if a not in members else a for a in node.args] for node in group]
    for number, (node, taken) in enumerate(zip(group, wanted, strict=True)):
        entered = tuple(copies[a] if isinstance(a, fx.Node) and a in members else a for a in taken)
        copies[node] = inner.call_function(node.target, entered)  # type: ignore[arg-type]
        copies[node].name = f"b{number}"
    inner.output(copies[root])
    if (pattern := str(inner)) not in kernels:
        kernels[pattern] = LoopKernel(inner)
    with graph.inserting_before(root):
        replacement = graph.call_function(kernels[pattern], tuple(arguments))
    replacement.meta = dict(root.meta)
    root.replace_all_uses_with(replacement)
    for node in reversed(group):
        graph.erase_node(node)


class Kernel:
    """A fused group, as a function of the tensors that enter it.

    Tensors of one shape and layout without gaps are passed on as rows of numbers, so that one compiled
    kernel serves them all.
    """

    __name__ = "kernel"
    worth_keeping = True

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = compiled(function)

    def __call__(self, *arguments: Any) -> Tensor:
        """The group's result."""
        large = [a for a in arguments if isinstance(a, Tensor) and a.dim()]
        first = large[0] if large else None
        if first is None or not _is_one_block(first) or any(_is_laid_out_unlike(a, first) for a in large):
            result: Tensor = self._function(*arguments)
            return result
        row: Tensor = self._function(
            *(_row(a) if isinstance(a, Tensor) and a.dim() else a for a in arguments)
        )
        return row.as_strided(first.shape, first.stride())


def _is_one_block(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _is_laid_out_unlike(x: Tensor, other: Tensor) -> bool:
    return x.shape != other.shape or x.stride() != other.stride()


def _row(x: Tensor) -> Tensor:
    # Not a view, for whose every base shape there would be another kernel.
    return x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), (x.numel(),), (1,))
