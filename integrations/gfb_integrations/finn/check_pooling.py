"""Which pooling FINN does not build, and which averages it truncates to other values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from math import prod

from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.findings import Finding
from gfb_integrations.finn.layer_walks import finding, origin, readers_of


def pooling(graph: LayerGraph) -> Iterator[Finding]:
    """What is wrong with pooling layers, and with the truncations of averages."""
    for node in graph.of("avg_pool"):
        readers = readers_of(graph, node)
        if not all(r.op == "quantize" and r.attributes["kind"] == "truncation" for r in readers):
            yield finding(
                node,
                "average pooling",
                "Its averages are not truncated to integers.",
                'Use TruncAvgPool2d with trunc_quant=TruncTo8bit and float_to_int_impl_type="FLOOR".',
            )
        elif node.attributes["adaptive"]:
            yield finding(
                node,
                "average pooling",
                "The size of its output is given, not that of its window.",
                f"Use TruncAvgPool2d({node.attributes['kernel']}, ...), which computes the same.",
            )
        else:
            yield from _average(graph, node)
        if any(source.op == "max_pool" for source in graph.producers(node)):
            yield finding(
                node,
                "average of maxima",
                "It averages what maximum pooling puts out, whose sign FINN does not find.",
                "Put the average in front of the maximum pooling, or a QuantReLU between them.",
            )
    for node in graph.of("max_pool"):
        if any(step != 1 for step in node.attributes["dilation"]):
            yield finding(node, "pooling", "Its window is dilated.", "Use dilation=1.")
        if any(s > k for s, k in zip(node.attributes["stride"], node.attributes["kernel"], strict=True)):
            yield finding(
                node,
                "pooling",
                "It leaves out values between its windows.",
                "Use a stride of at most the window's size.",
            )
        if node.attributes["ceil_mode"]:
            yield finding(
                node, "pooling", "It rounds its output size up.", "Use ceil_mode=False, and pad if needed."
            )


def _average(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    about = node.attributes
    if len(set(about["kernel"])) > 1 or len(set(about["stride"])) > 1 or any(about["padding"]):
        yield finding(
            node,
            "average pooling",
            "Its window or stride is not square, or it pads.",
            "FINN averages over square windows without padding.",
        )
        return
    source = origin(graph, graph.producers(node)[0])
    if source.op == "add":
        yield finding(
            node,
            "average of sums",
            "It averages a sum, whose sign FINN does not find.",
            "Put a QuantReLU or QuantIdentity between them.",
        )
    if source.op != "quantize" or source.attributes["bits"] is None:
        return
    width = int(source.attributes["bits"])
    for truncation in readers_of(graph, node):
        kept = int(truncation.attributes["bits"])
        if not truncates_alike(width, prod(about["kernel"]), kept):
            right = [b for b in range(2, kept + 9) if truncates_alike(width, prod(about["kernel"]), b)]
            advice = (
                f"Truncate to one of these widths: {', '.join(map(str, right))}."
                if right
                else f"Give {source.name!r} more bits."
            )
            yield finding(
                truncation,
                "truncated width",
                f"FINN shifts averages of {prod(about['kernel'])} values of {width} bits by another number "
                f"of bits than Brevitas when {kept} are kept.",
                advice,
                "wrong",
            )


def truncates_alike(width: int, values: int, kept: int) -> bool:
    """Whether FINN and Brevitas shift an average by the same number of bits.

    Brevitas shifts the sum from the bits that it may need to those that are kept. FINN goes back from the
    bits of the sum to those of one value, rounding down, and from there to a sum again
    (``transformation/qonnx/infer_quant_avg_pool_2d.py`` and ``QuantAvgPool2d`` of QONNX).

    Args:
        width: Bits of one value.
        values: Values in a window.
        kept: Bits of the truncated average.
    """
    summed = _bits_of_sum(width, values)
    of_one_value = math.floor(math.log2(2**summed / values))
    return kept <= summed and max(0, _bits_of_sum(of_one_value, values) - kept) == summed - kept


def averaged_widths(graph: LayerGraph) -> dict[str, set[int]]:
    """Widths at which the averages of each quantizer's values are truncated right, by its name."""
    found: dict[str, set[int]] = {}
    for node in graph.of("avg_pool"):
        source = origin(graph, graph.producers(node)[0])
        name = source.attributes.get("quantizer")
        if name is None:
            continue
        for truncation in readers_of(graph, node):
            kept, values = int(truncation.attributes["bits"]), prod(node.attributes["kernel"])
            right = {b for b in range(1, 17) if truncates_alike(b, values, kept)}
            found[name] = found.get(name, right) & right
    return found


def _bits_of_sum(width: int, values: int) -> int:
    largest: int = (2**width - 1) * values
    return largest.bit_length()
