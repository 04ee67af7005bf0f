"""Calls in a traced float model, in the form that Brevitas' graph quantization knows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Node

_RELUS = (torch.relu, torch.relu_, F.relu_, "relu", "relu_")
_CLAMPS = (torch.clamp, torch.clamp_, torch.clip, "clamp", "clamp_", "clip", "clamp_min", torch.clamp_min)
_JOINS = tuple(getattr(torch, name) for name in ("concat", "concatenate") if hasattr(torch, name))
_AVERAGES = {
    F.avg_pool1d: F.adaptive_avg_pool1d,
    F.avg_pool2d: F.adaptive_avg_pool2d,
    F.avg_pool3d: F.adaptive_avg_pool3d,
}
_SEVERAL_RESULTS = (nn.MultiheadAttention, nn.RNNBase)


def standardize_calls(graph: GraphModule, example: Callable[[Node], Any]) -> None:
    """Bring methods and aliases of functions into one form, in place.

    Args:
        graph: The traced model.
        example: The value of a node for the example inputs.
    """
    for node in list(graph.graph.nodes):
        target: Any = node.target
        if node.op == "call_module":
            module = graph.get_submodule(target)
            if type(module) is nn.Identity:
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
            elif isinstance(module, _SEVERAL_RESULTS):
                node.kwargs = {
                    k: v for k, v in node.kwargs.items() if k != "is_causal"
                }  # a hint about the mask
                _ask_for_two_results(graph, node)
        elif target in _RELUS:
            _call(node, F.relu, node.args[:1])
        elif target in _CLAMPS:
            _clamp(node)
        elif target in _JOINS:
            node.target = torch.cat
        elif target in _AVERAGES:
            _average(node, example)
    graph.graph.lint()
    graph.recompile()


def _call(node: Node, function: Callable[..., Any], args: tuple[Any, ...], **kwargs: Any) -> None:
    node.op, node.target, node.args, node.kwargs = "call_function", function, args, kwargs


def _clamp(node: Node) -> None:
    low, high = (*node.args[1:], None, None)[:2]
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    if low == 0 and not isinstance(low, Node) and isinstance(high, (int, float, type(None))):
        source = node.args[:1] or (node.kwargs["input"],)
        if high is None:
            _call(node, F.relu, source)
        elif high == 6:
            _call(node, F.relu6, source)
        elif high > 0:
            _call(node, F.hardtanh, source, min_val=0.0, max_val=float(high))


def _average(node: Node, example: Callable[[Node], Any]) -> None:
    """An average whose window is computed from the size of its input is one over all positions, or fixed."""
    given = dict(node.kwargs) | dict(zip(_AVERAGE_ARGUMENTS, node.args[1:], strict=False))
    if not any(isinstance(value, Node) for value in _flat(list(given.values()))):
        return
    source = cast(Node, node.args[0])
    known = {name: _numbers(value, example) for name, value in given.items()}
    sizes = tuple(example(source).shape[2:])
    window = known["kernel_size"]
    if sizes == (window if isinstance(window, tuple) else (window,) * len(sizes)) and not known.get(
        "padding"
    ):
        _call(node, _AVERAGES[cast(Any, node.target)], (source, 1))
    else:
        node.args, node.kwargs = (source,), known


_AVERAGE_ARGUMENTS = (
    "kernel_size",
    "stride",
    "padding",
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
)


def _numbers(value: Any, example: Callable[[Node], Any]) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_numbers(item, example) for item in value)
    return example(value) if isinstance(value, Node) else value


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _flat(value)
        else:
            yield value


def settle_sizes(graph: GraphModule) -> None:
    """Take what is computed of sizes out of Brevitas' sight, which takes its sums for sums of values."""
    for node in reversed(graph.graph.nodes):
        if not _is_size(node):
            continue
        if not node.users:
            graph.graph.erase_node(node)
        elif node.target in (operator.add, operator.iadd) and len(node.args) == 2:
            left, right = node.args
            with graph.graph.inserting_before(node):
                minus = (
                    graph.graph.call_function(operator.neg, (right,))
                    if isinstance(right, Node)
                    else -cast(int, right)
                )
            node.target, node.args = operator.sub, (left, minus)
    graph.graph.lint()
    graph.recompile()


def _is_size(node: Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    of_numbers = getattr(node.target, "__module__", "") in ("_operator", "builtins", "math")
    return of_numbers and bool(node.all_input_nodes) and all(map(_is_size, node.all_input_nodes))


def separate_meetings(graph: GraphModule) -> None:
    """Let every sum and concatenation but the first read a copy of an operand that several read, in place.

    Brevitas gives all operands that meet one scale, two by two; where operands meet in a ring it comes to no
    end. A copy gets a quantizer of its own.
    """
    for node in list(graph.graph.nodes):
        meetings = [user for user in node.users if user.target in _MEETINGS]
        for user in meetings[1:]:
            with graph.graph.inserting_before(user):
                user.replace_input_with(node, graph.graph.call_function(torch.clone, (node,)))
    graph.graph.lint()
    graph.recompile()


_MEETINGS = (torch.add, operator.add, operator.iadd, torch.cat, "add", "add_")


def _ask_for_two_results(graph: GraphModule, node: Node) -> None:
    """Brevitas tells a layer with several results by the two of them that are read."""
    readers = [user for user in node.users if user.target is operator.getitem]
    if len(readers) == len(node.users) == 1:
        with graph.graph.inserting_after(readers[0]):
            graph.graph.call_function(operator.getitem, (node, 1))
