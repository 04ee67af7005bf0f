"""Ways through a layer graph that several rules of the check take."""

from __future__ import annotations

from collections.abc import Iterator

from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.findings import Finding, Severity

TRANSPARENT = ("reshape", "batch_norm", "relu")


def finding(node: LayerNode, rule: str, problem: str, advice: str, severity: Severity = "refused") -> Finding:
    """A finding about a node."""
    return Finding(layer=node.name, rule=rule, severity=severity, problem=problem, advice=advice)


def origin(graph: LayerGraph, node: LayerNode) -> LayerNode:
    """What made the values of ``node``, past what only moves them or is taken up by thresholds."""
    while node.op in ("reshape", "max_pool"):
        (node,) = graph.producers(node)[:1]
    return node


def is_bipolar(node: LayerNode) -> bool:
    """Whether it makes -1 and 1."""
    about = node.attributes
    return node.op == "quantize" and about["bits"] == 1 and bool(about["signed"])


def readers_of(graph: LayerGraph, node: LayerNode) -> list[LayerNode]:
    """What reads the values of ``node``, past what only moves them."""
    found = []
    for reader in graph.consumers(node):
        found.extend(readers_of(graph, reader) if reader.op == "reshape" else [reader])
    return found


def readers_past_constants(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What reads the values of ``node``, past constants, which thresholds take up."""
    for reader in readers_of(graph, node):
        if reader.attributes.get("constant"):
            yield from readers_past_constants(graph, reader)
        else:
            yield reader


def is_behind_products(graph: LayerGraph, node: LayerNode) -> bool:
    """Whether ``node`` reads sums of products and nothing but operations of its kind follows."""
    from_products = all(source.op in ("conv", "linear", "other") for source in sources_of(graph, node))
    return from_products and all(
        reader.op == "output" or (reader.op == "other" and is_behind_products(graph, reader))
        for reader in readers_of(graph, node)
    )


def readers_past_pooling(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What reads the values of ``node``, and what reads their maxima."""
    for reader in readers_of(graph, node):
        yield reader
        if reader.op == "max_pool":
            yield from readers_past_pooling(graph, reader)


def sources_of(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What made the values of ``node``, past what thresholds take up."""
    for source in graph.producers(node):
        if source.op in TRANSPARENT:
            yield from sources_of(graph, source)
        else:
            yield source


def quantizers_behind(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """The quantizers that round what a product puts out."""
    for reader in graph.consumers(node):
        if reader.op == "quantize":
            yield reader
        elif reader.op in TRANSPARENT:
            yield from quantizers_behind(graph, reader)


def summands(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What made the values that meet in ``node``; sums of sums are taken apart."""
    for source in graph.producers(node):
        made = origin(graph, source)
        if made.op == "add" and not made.attributes["constant"]:
            yield from summands(graph, made)
        else:
            yield made
