"""Graph pass: activations as one-byte codes, as far as the operations that only move values reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.leaf_operators import QUANTIZE
from gfb_brevitas.prepared.lower_quantizers import decoded, encoded
from gfb_brevitas.prepared.site_values import LARGEST_CODE_BITS, SiteValues, WidthInForce, decode, encode

aten = torch.ops.aten
MOVES_CODES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.expand.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.clone.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.detach.default,
    aten.alias.default,
}
"""Operations of one tensor whose results are some of its values in another place."""

CODES = "codes_of"
"""Key in a node's ``meta`` that holds the site whose codes it carries."""


def spread_codes(graph: fx.Graph, sites: list[WidthInForce], largest_bits: dict[int, int]) -> None:
    """Split quantizers of activations into encoding and decoding, and move the decoding down, in place.

    Args:
        graph: A captured graph.
        sites: Its quantizers.
        largest_bits: The largest width that each quantizer, by number, may get.
    """
    from_input = set(depends_on_input(graph))
    for node in list(graph.find_nodes(op="call_function", target=QUANTIZE)):
        site = sites[node.args[1]]
        if node not in from_input or not _has_codes(site, largest_bits):
            continue
        assert isinstance(site, SiteValues)
        with graph.inserting_before(node):
            codes = encoded(graph, node.args[0], site)
            codes.meta = {**node.meta, CODES: site}
            values = decoded(graph, codes, site)
            values.meta = dict(node.meta)
        node.replace_all_uses_with(values)
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node.target in MOVES_CODES and _is_decoded(node.args[0]):
            _move_past(graph, node)
        elif node.target is aten.max_pool2d_with_indices.default and _is_decoded(node.args[0]):
            _move_past_pooling(graph, node)
        elif node.target is aten.constant_pad_nd.default and _is_decoded(node.args[0]):
            _move_past_padding(graph, node)


def without_needless_codes(graph: fx.Graph) -> None:
    """Undo the splitting where nothing uses the codes as they are, in place."""
    for node in list(graph.find_nodes(op="call_function", target=encode)):
        if not all(user.target is decode for user in node.users):
            continue
        site = node.meta[CODES]
        with graph.inserting_before(node):
            values = graph.call_function(QUANTIZE, (node.args[0], site.index))
        values.meta = {name: value for name, value in node.meta.items() if name != CODES}
        for user in list(node.users):
            user.replace_all_uses_with(values)
            graph.erase_node(user)
        graph.erase_node(node)


def codes_behind(values: object) -> fx.Node | None:
    """The codes that a node is the decoding of, if it is one."""
    return values.args[0] if isinstance(values, fx.Node) and values.target is decode else None  # type: ignore[return-value]


def _has_codes(site: WidthInForce, largest_bits: dict[int, int]) -> bool:
    return (
        isinstance(site, SiteValues) and site.is_per_tensor and largest_bits[site.index] <= LARGEST_CODE_BITS
    )


def _is_decoded(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target is decode


def _move_past(graph: fx.Graph, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    codes = codes_behind(source)
    assert codes is not None
    with graph.inserting_before(node):
        moved = graph.call_function(node.target, (codes, *node.args[1:]), node.kwargs)  # type: ignore[arg-type]
        moved.meta = {**node.meta, CODES: codes.meta[CODES]}
        values = graph.call_function(decode, (moved, *source.args[1:]))
        values.meta = dict(node.meta)
    node.replace_all_uses_with(values)
    graph.erase_node(node)


def _move_past_pooling(graph: fx.Graph, node: fx.Node) -> None:
    users, source = list(node.users), node.args[0]
    assert isinstance(source, fx.Node)
    if any(user.args[1] != 0 for user in users) or len(source.meta["tensor_meta"].shape) != 4:
        return  # the indices are wanted, or there is no batch
    codes = codes_behind(source)
    assert codes is not None
    with graph.inserting_before(node):
        pooled = graph.call_function(pooled_codes, (codes, *node.args[1:]))
    for user in users:
        pooled.meta = {**user.meta, CODES: codes.meta[CODES]}
        with graph.inserting_before(user):
            values = graph.call_function(decode, (pooled, *source.args[1:]))
        values.meta = dict(user.meta)
        user.replace_all_uses_with(values)
        graph.erase_node(user)
    graph.erase_node(node)


def _move_past_padding(graph: fx.Graph, node: fx.Node) -> None:
    source, padding, *value = node.args
    assert isinstance(source, fx.Node)
    codes = codes_behind(source)
    assert codes is not None
    if any(value):
        return  # only of zero every width has a code
    site = codes.meta[CODES]
    with graph.inserting_before(node):
        zero = graph.call_function(site.zero_point)
        padded = graph.call_function(aten.constant_pad_nd.default, (codes, padding, zero))
        padded.meta = {**node.meta, CODES: site}
        values = graph.call_function(decode, (padded, *source.args[1:]))
        values.meta = dict(node.meta)
    node.replace_all_uses_with(values)
    graph.erase_node(node)


def pooled_codes(
    codes: Tensor,
    kernel_size: list[int],
    stride: list[int] | None = None,
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Tensor:
    """The largest code of each window; codes of shape ``(N, C, height, width)``."""
    # aten's own pooling of bytes refuses images of more than 255 pixels.
    pooled: Tensor = torch.ops.quantized.max_pool2d(
        codes.contiguous(memory_format=torch.channels_last),
        *(kernel_size, stride or kernel_size, padding, dilation, ceil_mode),
    )
    return pooled
