"""Graph pass: BatchNorm becomes a factor and an offset per channel, folded into the convolution before it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from gfb_brevitas.prepared.channel_statistics import batch_factor_and_offset
from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.integer_products import IntegerProduct

aten = torch.ops.aten
_BATCH_NORMS: dict[Any, tuple[int, ...]] = {
    # where weight, bias, running mean, running variance, training and epsilon stand
    aten.native_batch_norm.default: (1, 2, 3, 4, 5, 7),
    aten._native_batch_norm_legit.default: (1, 2, 3, 4, 5, 7),
    aten._native_batch_norm_legit_no_training.default: (1, 2, 3, 4, -1, 6),
    aten.cudnn_batch_norm.default: (1, 2, 3, 4, 5, 7),
    aten.miopen_batch_norm.default: (1, 2, 3, 4, 5, 7),
}


def fold_batch_norm(graph: fx.Graph) -> None:
    """Replace every BatchNorm, in place.

    With running statistics, and right after a convolution with a constant weight, it becomes part of the
    weight and bias; otherwise a multiplication and an addition. With statistics of the batch, these are
    computed first.
    """
    graph.eliminate_dead_code()
    from_input = set(depends_on_input(graph))
    for node in list(graph.nodes):
        places = _BATCH_NORMS.get(node.target)
        if places is None or node not in from_input or any(u.args[1] != 0 for u in node.users):
            continue
        for user in list(node.users):
            with graph.inserting_before(user):
                replacement = _affine(graph, node, places, from_input)
            replacement.meta = dict(user.meta)
            user.replace_all_uses_with(replacement)
            graph.erase_node(user)
        graph.erase_node(node)


def _affine(graph: fx.Graph, node: fx.Node, places: tuple[int, ...], from_input: set[fx.Node]) -> fx.Node:
    x = node.args[0]
    assert isinstance(x, fx.Node)
    weight, bias, mean, variance, training, epsilon = (
        False if place < 0 else node.args[place] for place in places
    )
    if training:
        both = graph.call_function(batch_factor_and_offset, (x, weight, bias, epsilon))
        shaped = [graph.call_function(operator.getitem, (both, place)) for place in (0, 1)]
    else:
        factor = graph.call_function(channel_factor, (weight, variance, epsilon))
        offset = graph.call_function(channel_offset, (factor, bias, mean))
        if _is_folding_possible(x, from_input):
            return _folded(graph, x, factor, offset)
        dimensions = len(x.meta["tensor_meta"].shape)
        shaped = [graph.call_function(as_channels, (value, dimensions)) for value in (factor, offset)]
    scaled = graph.call_function(aten.mul.Tensor, (x, shaped[0]))
    return graph.call_function(aten.add.Tensor, (scaled, shaped[1]))


def _is_folding_possible(x: fx.Node, from_input: set[fx.Node]) -> bool:
    if len(x.users) != 1:
        return False
    if isinstance(x.target, IntegerProduct):
        return True
    return x.target is aten.convolution.default and not x.args[6] and x.args[1] not in from_input


def _folded(graph: fx.Graph, product: fx.Node, factor: fx.Node, offset: fx.Node) -> fx.Node:
    if isinstance(product.target, IntegerProduct):
        codes, packed, scales, zeros, bias = product.args
        scaled = graph.call_function(scaled_rows, (scales, factor))
        shifted = graph.call_function(shifted_bias, (bias, factor, offset))
        return graph.call_function(product.target, (codes, packed, scaled, zeros, shifted))
    x, weight, bias, *rest = product.args
    scaled = graph.call_function(scaled_rows, (weight, factor))
    shifted = graph.call_function(shifted_bias, (bias, factor, offset))
    return graph.call_function(aten.convolution.default, (x, scaled, shifted, *rest))


def channel_factor(weight: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """What BatchNorm multiplies each channel with."""
    inverse = (variance + epsilon).rsqrt()
    return inverse if weight is None else inverse * weight


def channel_offset(factor: Tensor, bias: Tensor | None, mean: Tensor) -> Tensor:
    """What BatchNorm adds to each channel."""
    return -mean * factor if bias is None else bias - mean * factor


def as_channels(values: Tensor, dimensions: int) -> Tensor:
    """One value per channel, shaped to meet a tensor of that many dimensions."""
    return values.reshape(1, -1, *(1,) * (dimensions - 2))


def scaled_rows(weight: Tensor, factor: Tensor) -> Tensor:
    """A weight with each output channel multiplied by its factor."""
    return weight * factor.reshape(-1, *(1,) * (weight.dim() - 1))


def shifted_bias(bias: Tensor | None, factor: Tensor, offset: Tensor) -> Tensor:
    """The bias of a convolution that BatchNorm is folded into."""
    return offset if bias is None else bias * factor + offset
