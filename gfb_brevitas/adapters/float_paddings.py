"""Zeros that a traced float model puts around the input of a convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch.nn.functional as F
from torch import nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Node

_CONVOLUTIONS = {nn.Conv1d: nn.ZeroPad1d, nn.Conv2d: nn.ZeroPad2d, nn.Conv3d: nn.ZeroPad3d}
_MODULES = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)


def settle_paddings(graph: GraphModule, example: Callable[[Node], Any]) -> list[str]:
    """Give paddings to the convolutions that read them, in place, or layers of their own.

    Args:
        graph: The traced model, with layers for its convolutions.
        example: The value of a node for the example inputs; sizes become numbers.

    Returns:
        Paths of the layers that pad; the layer behind one has ``_padding`` less.
    """
    paths = []
    for node in list(graph.graph.nodes):
        reader = _convolution_behind(graph, node)
        amounts = _zeros(graph, node, example) if reader is not None else None
        if reader is None or amounts is None:
            continue
        layer = cast(nn.Conv2d, graph.get_submodule(str(reader.target)))
        source = node.args[0]
        dims = layer.weight.dim() - 2
        amounts = (*amounts, *(0,) * (2 * dims - len(amounts)))
        if any(amounts[2 * dims :]):
            continue
        if _is_even(amounts) and not isinstance(layer.padding, str) and layer.padding_mode == "zeros":
            layer.padding = tuple(old + new for old, new in zip(layer.padding, amounts[-2::-2], strict=True))
            layer._reversed_padding_repeated_twice = [p for p in reversed(layer.padding) for _ in range(2)]
            node.replace_all_uses_with(source)
        else:
            paths.append(f"{reader.target}_padding")
            owner, _, name = paths[-1].rpartition(".")
            graph.get_submodule(owner).add_module(name, cast(Any, _CONVOLUTIONS[type(layer)])(amounts))
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.call_module(paths[-1], (source,)))
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return paths


@contextmanager
def paddings_hidden(graph: GraphModule) -> Iterator[None]:
    """A ``with`` block in which layers that pad zeros are identities.

    Zeros stay zeros when they are quantized, so that a convolution behind them needs no quantizer of its
    own; Brevitas knows that of identities alone.
    """
    paths = {str(n.target) for n in graph.graph.nodes if n.op == "call_module"}
    hidden = {path: graph.get_submodule(path) for path in paths}
    hidden = {path: module for path, module in hidden.items() if type(module) in _CONVOLUTIONS.values()}
    for path in hidden:
        graph.set_submodule(path, nn.Identity())
    try:
        yield
    finally:
        for path, module in hidden.items():
            graph.set_submodule(path, module)


def _convolution_behind(graph: GraphModule, node: Node) -> Node | None:
    """The convolution that alone reads ``node``, and is called nowhere else."""
    (reader,) = node.users if len(node.users) == 1 else (None,)
    if reader is None or reader.op != "call_module":
        return None
    calls = [n for n in graph.graph.nodes if n.op == "call_module" and n.target == reader.target]
    known = type(graph.get_submodule(str(reader.target))) in _CONVOLUTIONS
    return reader if known and len(calls) == 1 else None


def _zeros(graph: GraphModule, node: Node, example: Callable[[Node], Any]) -> tuple[int, ...] | None:
    """The amounts of zeros that ``node`` puts around its input, last dimension first."""
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        if isinstance(module, _MODULES) and module.value == 0:
            return tuple(module.padding)
        return None
    if node.target is not F.pad:
        return None
    call = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | dict(node.kwargs)
    if call.get("mode", "constant") != "constant" or call.get("value") not in (None, 0) or not node.args:
        return None
    amounts = cast(Any, call["pad"])
    return tuple(int(example(a) if isinstance(a, Node) else a) for a in amounts)


def _is_even(amounts: tuple[int, ...]) -> bool:
    return all(a == b >= 0 for a, b in zip(amounts[::2], amounts[1::2], strict=True))
