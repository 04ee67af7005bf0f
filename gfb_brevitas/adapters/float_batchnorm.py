"""BatchNorm behind grouped transposed convolutions, which Brevitas does not fold right."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gfb_brevitas.adapters.brevitas_fx import GraphModule

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def merge_grouped_transposed(graph: GraphModule) -> None:
    """Fold BatchNorms into the grouped transposed convolutions in front of them, in place.

    Their weights have the shape (inputs, outputs / groups, ...): an output channel's weights are in the rows
    of its group alone.
    """
    for node in list(graph.graph.nodes):
        source: Any = node.args[0] if node.op == "call_module" and node.args else None
        if source is None or source.op != "call_module" or len(source.users) > 1:
            continue
        layer, norm = graph.get_submodule(source.target), graph.get_submodule(node.target)
        if (
            type(layer) in _TRANSPOSED
            and layer.groups != 1
            and type(norm) in _NORMS
            and norm.running_var is not None
        ):
            _merge(layer, norm)
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()


def _merge(layer: Any, norm: Any) -> None:
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    weight = layer.weight.detach()
    by_group = weight.view(layer.groups, -1, *weight.shape[1:])
    factors = scale.detach().view(layer.groups, 1, -1, *(1,) * (weight.dim() - 2))
    layer.weight = nn.Parameter((by_group * factors).view_as(weight))
    bias = shift if layer.bias is None else layer.bias * scale + shift
    layer.bias = nn.Parameter(bias.detach())
