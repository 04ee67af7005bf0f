"""Layers over one dimension, each with its two-dimensional twin that FINN builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.findings import Finding
from gfb_integrations.finn.layer_walks import finding

RULE = "one dimension"
_ON_IMAGES = "on samples of channels x length x 1 (BatchNorm1d becomes BatchNorm2d)."


def one_dimension(graph: LayerGraph) -> Iterator[Finding]:
    """Convolutions and pooling over one dimension."""
    for node in graph.of("conv"):
        about = node.attributes
        if len(about["kernel"]) == 1 and not about["transposed"]:
            settings = [
                f"{name}={_twin(about[name], unit)}"
                for name, unit in (("stride", 1), ("padding", 0), ("dilation", 1))
                if about[name] != (unit,)
            ]
            settings += [f"groups={about['groups']}"] if about["groups"] != 1 else []
            twin = ", ".join(
                [
                    str(about["in_channels"]),
                    str(about["out_channels"]),
                    str(_twin(about["kernel"], 1)),
                    *settings,
                ]
            )
            yield finding(
                node,
                RULE,
                "It is a convolution over one dimension.",
                f"Use QuantConv2d({twin}), the same weights with one more axis, {_ON_IMAGES}",
            )
    for node in graph.of("max_pool", "avg_pool"):
        if is_pool_of_one_dimension(graph, node):
            kind = "MaxPool2d" if node.op == "max_pool" else "TruncAvgPool2d"
            yield finding(
                node,
                RULE,
                "It pools over one dimension.",
                f"Use {kind}({_of(node, 'kernel')}, stride={_of(node, 'stride')}), {_ON_IMAGES}",
            )


def is_pool_of_one_dimension(graph: LayerGraph, node: LayerNode) -> bool:
    """Whether PyTorch put an axis of length 1 in for it, or it has one axis."""
    if len(node.attributes["kernel"]) == 1:
        return True
    (source,) = graph.producers(node)
    before = graph.producers(source)[0] if source.op == "reshape" and source.module == node.module else None
    return before is not None and len(before.shape) == 2 and source.shape[-2] == 1


def without_parts(graph: LayerGraph, findings: Sequence[Finding]) -> list[Finding]:
    """One row for each layer: reshapes that PyTorch makes within a layer that is found go with it."""
    whole = {f.layer for f in findings if f.rule in (RULE, "statistics")}
    parts = {
        neighbour.name
        for name in whole
        for neighbour in (*graph.producers(graph[name]), *graph.consumers(graph[name]))
        if neighbour.op == "reshape" and neighbour.module == graph[name].module
    }
    return [
        f
        for f in findings
        if f.layer not in parts and (f.layer not in whole or f.rule in (RULE, "statistics"))
    ]


def _of(node: LayerNode, name: str) -> tuple[int, ...]:
    values: tuple[int, ...] = node.attributes[name]
    return (values[-1], 1)


def _twin(values: tuple[int, ...], unit: int) -> tuple[int, ...]:
    return (*values, unit)
