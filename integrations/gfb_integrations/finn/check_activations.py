"""Which activation quantizers FINN does not make thresholds of."""

from __future__ import annotations

from collections.abc import Iterator

from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.findings import Finding
from gfb_integrations.finn.layer_walks import (
    finding,
    is_bipolar,
    origin,
    quantizers_behind,
    readers_of,
    readers_past_pooling,
    sources_of,
)

MAX_ACTIVATION_BITS = 8
"""Widest activation that FINN turns into thresholds, its default of ``max_multithreshold_bit_width``."""


_ACTIVATIONS = ("", "ReLU", "Hardtanh")


def activations(graph: LayerGraph, *, standalone_thresholds: bool = False) -> Iterator[Finding]:
    """What is wrong with the quantizers of activations, and with truncations."""
    for node in graph.of("quantize"):
        about = node.attributes
        if about["kind"] == "truncation":
            yield from _truncation(node)
        elif about["bits"] is None:
            yield finding(
                node, "integers", "Its values are not integers.", "Use an integer quantizer of 2 to 8 bits."
            )
        else:
            yield from _activation(graph, node, standalone_thresholds)


def _activation(graph: LayerGraph, node: LayerNode, standalone: bool) -> Iterator[Finding]:
    about = node.attributes
    bits = about["bits"]
    if bits > MAX_ACTIVATION_BITS:
        yield finding(
            node,
            "activation width",
            f"Its activations have {bits:g} bits.",
            f"FINN makes thresholds of at most {MAX_ACTIVATION_BITS} bits: lower bit_width.",
        )
    if about["per_channel"]:
        yield finding(
            node,
            "activation scale",
            "Its activations have a scale per channel.",
            "Use one scale per tensor (scaling_per_output_channel=False).",
        )
    if about["zero_point"]:
        yield finding(
            node, "zero point", "Its activations have a zero point.", "Use a quantizer with the zero point 0."
        )
    if about["activation"] not in _ACTIVATIONS:
        yield finding(
            node,
            "activation function",
            f"FINN has no thresholds for {about['activation']}.",
            "Use QuantReLU or QuantIdentity.",
        )
    if about["rounding"] not in (None, "ROUND"):
        yield finding(
            node,
            "rounding",
            f"It rounds with {about['rounding']}; FINN's thresholds round to the nearest.",
            'Use float_to_int_impl_type="ROUND".',
            "wrong",
        )
    if bits == 1 and about["signed"] and not about["narrow_range"]:
        yield finding(
            node,
            "1-bit integers",
            "Its values are integers of 1 bit, 0 and -1.",
            "Use a binary quantizer (-1 and 1), or 2 bits.",
        )
    elif is_bipolar(node):
        yield from _bipolar_activation(graph, node, standalone)
    if any(source.op == "relu" for source in graph.producers(node)) and not about["signed"]:
        yield finding(
            node,
            "ReLU",
            "An unsigned quantizer follows a ReLU, which FINN builds as a layer of its own.",
            "Use QuantReLU in place of both.",
            "in floats",
        )
    if about["signed"]:
        yield from _signed(graph, node)


def _bipolar_activation(graph: LayerGraph, node: LayerNode, standalone: bool) -> Iterator[Finding]:
    readers = list(readers_past_pooling(graph, node))
    for reader in readers:
        if reader.op == "avg_pool":
            yield finding(
                reader,
                "bipolar average",
                "It averages activations of -1 and 1, whose step of 2 FINN's truncation does not know.",
                "Give the activations 2 bits or more.",
                "wrong",
            )
        elif any(reader.attributes.get("padding", ())) and reader.op in ("conv", "max_pool"):
            yield finding(
                reader,
                "bipolar padding",
                "It pads activations of -1 and 1 with zeros, which have no 1-bit value.",
                "Leave out the padding, or give the activations 2 bits or more.",
                "wrong",
            )
    in_products = any(source.op in ("conv", "linear") for source in sources_of(graph, node))
    wider = [r for r in readers if r.op != "max_pool" and r.attributes.get("weight_bits") != 1]
    if wider and (standalone or not in_products):
        where = "in a layer of its own" if in_products else "of values that come from no product"
        yield finding(
            node,
            "bipolar thresholds",
            f"It makes -1 and 1 {where}, for layers with wider weights.",
            "Give it 2 bits or more, or 1-bit weights to what reads it.",
        )


def _signed(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    if any(source.op == "relu" for source in graph.producers(node)):
        yield finding(node, "ReLU", "A signed quantizer follows a ReLU.", "Use QuantReLU in place of both.")
    for reader in readers_of(graph, node):
        if reader.op == "max_pool" and any(reader.attributes["padding"]):
            yield finding(
                reader,
                "signed padding",
                "It pads signed values, whose smallest one is not zero.",
                "Leave out the padding, or pool the values of a QuantReLU.",
            )


def _truncation(node: LayerNode) -> Iterator[Finding]:
    if node.attributes["rounding"] != "FLOOR":
        yield finding(
            node,
            "truncation",
            f"It truncates with rounding mode {node.attributes['rounding']}.",
            'Use trunc_quant=TruncTo8bit, float_to_int_impl_type="FLOOR".',
        )


def bipolar_product(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    """FINN makes the accumulator of such a product too narrow for several thresholds."""
    source = origin(graph, graph.producers(node)[0])
    if node.attributes["weight_bits"] != 1 or not is_bipolar(source):
        return
    for reader in quantizers_behind(graph, node):
        if reader.attributes["bits"] != 1:
            yield finding(
                node,
                "bipolar product",
                f"Its weights and inputs are -1 and 1; {reader.name!r} rounds its sums to more than 1 bit.",
                "Give the weights or the inputs 2 bits or more.",
                "wrong",
            )
