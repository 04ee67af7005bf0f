"""Layers that a float model calls several times, which Brevitas' graph quantization takes one call of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule
from gfb_brevitas.adapters.copying import copied


@dataclass(frozen=True, kw_only=True)
class CopiedCall:
    """A further call of a layer.

    Attributes:
        layer: Path of the layer.
        copy: Path of the copy that is called instead.
    """

    layer: str
    copy: str


def copy_shared_layers(graph: GraphModule) -> list[CopiedCall]:
    """Let every further call of a layer with parameters or buffers call a copy, in place."""
    copies: list[CopiedCall] = []
    calls: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        path = str(node.target)
        layer = graph.get_submodule(path)
        calls[path] = calls.get(path, 0) + 1
        if calls[path] > 1 and layer.state_dict():
            call = CopiedCall(layer=path, copy=f"{path}_call_{calls[path]}")
            owner, _, name = call.copy.rpartition(".")
            graph.get_submodule(owner).add_module(name, copied(layer))
            node.target = call.copy
            copies.append(call)
    graph.recompile()
    return copies


def reunite(graph: GraphModule, copies: list[CopiedCall]) -> list[CopiedCall]:
    """Call the layer itself again where its copy still is one, in place.

    A layer behind whose calls different BatchNorms were folded has different weights in each.

    Returns:
        The copies that stay.
    """
    different = []
    for call in copies:
        layer, other = _found(graph, call.layer), _found(graph, call.copy)
        if layer is None and other is None:
            continue  # folded into the layers in front
        if layer is None or other is None or not _same(layer, other):
            different.append(call)
            continue
        for node in graph.graph.nodes:
            if node.op == "call_module" and node.target == call.copy:
                node.target = call.layer
        graph.delete_submodule(call.copy)
        given: Any = layer
        if getattr(other, "return_quant_tensor", False):
            given.return_quant_tensor = True  # one of its calls needs it; the last operation of all does not
    graph.recompile()
    return different


def tie_parameters(graph: GraphModule, tied: list[list[str]]) -> None:
    """Make parameters one again that were one in the float model and still have one value, in place.

    Args:
        graph: The quantized model.
        tied: Paths of parameters that were one.
    """
    for paths in tied:
        found = [(path, _parameter(graph, path)) for path in paths]
        present = [(path, value) for path, value in found if value is not None]
        for path, value in present[1:]:
            kept = present[0][1]
            if kept is not None and kept.shape == value.shape and torch.equal(kept, value):
                owner, _, name = path.rpartition(".")
                setattr(graph.get_submodule(owner), name, kept)


def shared_parameters(model: nn.Module) -> list[list[str]]:
    """Paths of parameters that are one under several names."""
    paths: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        paths.setdefault(id(value), []).append(name)
    return [names for names in paths.values() if len(names) > 1]


def _found(graph: GraphModule, path: str) -> nn.Module | None:
    try:
        return graph.get_submodule(path)
    except AttributeError:
        return None


def _parameter(graph: GraphModule, path: str) -> nn.Parameter | None:
    owner, _, name = path.rpartition(".")
    value = getattr(_found(graph, owner), name, None)
    return value if isinstance(value, nn.Parameter) else None


def _same(one: nn.Module, other: nn.Module) -> bool:
    if type(one) is not type(other):
        return False
    left, right = dict(one.named_parameters()), dict(other.named_parameters())
    buffers, others = dict(one.named_buffers()), dict(other.named_buffers())
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in ((left, right), (buffers, others))
    )
