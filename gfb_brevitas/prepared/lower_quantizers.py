"""Graph pass: quantizer operators become arithmetic, with the tensors of the width in force as arguments."""

from __future__ import annotations

from torch import fx

from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.leaf_operators import QUANTIZE, SCALE, WIDTH
from gfb_brevitas.prepared.site_values import SiteValues, WidthInForce, decode, encode, round_to_scale


def lower_quantizers(graph: fx.Graph, sites: list[WidthInForce]) -> None:
    """Replace what is left of the quantizer operators, in place.

    The arithmetic is that of the model, so equal inputs give equal values bit for bit.
    """
    from_input = set(depends_on_input(graph))
    for node in list(graph.nodes):
        if node.target not in (QUANTIZE, SCALE, WIDTH):
            continue
        site = sites[node.args[-1]]
        with graph.inserting_before(node):
            replacement = _lowered(graph, node, site, node in from_input)
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)


def _lowered(graph: fx.Graph, node: fx.Node, site: WidthInForce, from_input: bool) -> fx.Node:
    if not isinstance(site, SiteValues):
        return graph.call_function(site.width)
    if node.target is WIDTH:
        return graph.call_function(site.width)
    if node.target is SCALE:
        return graph.call_function(site.scale)
    if not from_input:
        return graph.call_function(site.quantized, (node.args[0],))
    numbers = (site.scale, site.low, site.high)
    arguments = (*(graph.call_function(number) for number in numbers), _bipolar(graph, site))
    return graph.call_function(round_to_scale, (node.args[0], *arguments))


def encoded(graph: fx.Graph, x: fx.Node, site: SiteValues) -> fx.Node:
    """A node that holds the codes of ``x``."""
    numbers = (site.scale, site.low, site.high)
    arguments = (*(graph.call_function(number) for number in numbers), _bipolar(graph, site))
    return graph.call_function(encode, (x, *arguments))


def decoded(graph: fx.Graph, codes: fx.Node, site: SiteValues) -> fx.Node:
    """A node that holds the values of codes."""
    return graph.call_function(
        decode, (codes, graph.call_function(site.scale), graph.call_function(site.low))
    )


def _bipolar(graph: fx.Graph, site: SiteValues) -> fx.Node | bool:
    return graph.call_function(site.is_bipolar) if site.integers.signed else False
