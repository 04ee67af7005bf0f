"""Whether FINN builds a model, layer by layer, found out before anything is trained.

Every rule was confirmed by running finn-plus 1.6.1 on a small model that breaks it; see
``tests/integrations/finn/patterns.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from torch import nn

from gfb_brevitas.adapters import SearchableModel, record_layers
from gfb_brevitas.adapters.tracing import ExampleInputs
from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.check_activations import activations, bipolar_product
from gfb_integrations.finn.check_one_dimension import one_dimension, without_parts
from gfb_integrations.finn.check_pooling import pooling
from gfb_integrations.finn.check_reshapes import reshapes
from gfb_integrations.finn.check_statistics import statistics
from gfb_integrations.finn.findings import CheckReport, Finding
from gfb_integrations.finn.layer_walks import (
    finding,
    is_behind_products,
    is_bipolar,
    origin,
    readers_of,
    readers_past_constants,
    summands,
)
from gfb_integrations.finn.output_rule import outputs

Rule = Callable[[LayerGraph], Iterator[Finding]]


def check(
    model: nn.Module, example_inputs: ExampleInputs, *, standalone_thresholds: bool = False
) -> CheckReport:
    """Say for each layer whether FINN builds it, why not, and what to change.

    FINN itself is not needed. Branches of different scales, which Brevitas refuses to add, are found too.

    Example:
        >>> for finding in check(model, images[:1]).findings:  # doctest: +SKIP
        ...     print(finding.layer, finding.problem, finding.advice)

    Args:
        model: A Brevitas model or a searchable one; it is not changed.
        example_inputs: One batch: a tensor, a tuple of positional or a mapping of keyword arguments.
        standalone_thresholds: Whether activations become layers of their own.

    Raises:
        UntraceableModelError: If the model fails on ``example_inputs``.
    """
    brevitas_model = model.model if isinstance(model, SearchableModel) else model
    graph = record_layers(brevitas_model, example_inputs)
    return check_layers(graph, standalone_thresholds=standalone_thresholds)


def check_layers(graph: LayerGraph, *, standalone_thresholds: bool = False) -> CheckReport:
    """:func:`check` on layers that have been recorded."""
    order = {node.name: position for position, node in enumerate(graph)}
    rules: tuple[Rule, ...] = (partial(activations, standalone_thresholds=standalone_thresholds), *_RULES)
    found = without_parts(graph, [f for rule in rules for f in rule(graph)])
    findings = sorted(found, key=lambda f: order[f.layer])
    return CheckReport(findings=tuple(findings), layers=len(graph))


def _input_quantizer(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("input"):
        for reader in readers_past_constants(graph, node):
            if reader.op not in ("quantize", "output"):
                yield finding(
                    reader,
                    "input quantizer",
                    "It reads the input of the model as floats.",
                    "Put a QuantIdentity of at most 8 bits with return_quant_tensor=True in front.",
                    "off the FPGA",
                )


def _float_activations(graph: LayerGraph) -> Iterator[Finding]:
    """Activation functions and values that no quantizer follows where FINN needs integers."""
    for node in graph.of("conv", "linear", "max_pool", "avg_pool"):
        for source in graph.producers(node):
            made = origin(graph, source)
            if made.op not in ("quantize", "input", "max_pool", "avg_pool", "concat", "add"):
                yield finding(
                    node,
                    "quantized input",
                    f"It reads values of {made.name!r} that no quantizer has rounded.",
                    "Put a QuantReLU or QuantIdentity of at most 8 bits between them.",
                )


def _products(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("conv", "linear"):
        about = node.attributes
        if about["weight_bits"] is None:
            yield finding(
                node,
                "quantized weights",
                "Its weights are floats.",
                "Use a Brevitas layer with weight_quant.",
            )
        elif about["weight_bits"] > MAX_WEIGHT_BITS:
            yield finding(
                node,
                "weight width",
                f"Its weights have {about['weight_bits']:g} bits.",
                f"Use at most {MAX_WEIGHT_BITS}: FINN computes in float32 while it streamlines.",
                "wrong",
            )
        if about["weight_zero_point"]:
            yield finding(
                node, "weight zero point", "Its weights have a zero point.", "Use symmetric weights."
            )
        if about["bias_quantizer"] is not None and node.op == "conv":
            yield finding(
                node,
                "quantized bias",
                "Its bias is quantized.",
                "Leave the bias in floats (bias_quant=None); FINN puts it into the thresholds.",
            )
        if node.op == "conv":
            yield from _convolution(graph, node)
        elif about["vectors"] > 1:
            yield finding(
                node,
                "sequence",
                f"It is applied to {about['vectors']} vectors of a sample.",
                "FINN's flow has linear layers of one vector: flatten in front, or use a 1x1 convolution.",
            )
        yield from bipolar_product(graph, node)


def _convolution(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    about = node.attributes
    image = graph.producers(node)[0].shape[1:]
    depthwise = about["groups"] == about["in_channels"] == about["out_channels"]
    problem = None
    if about["transposed"]:
        problem = "It is a transposed convolution."
    elif len(about["kernel"]) != 2:
        problem = f"It is a convolution over {len(about['kernel'])} dimension(s)."
    elif about["groups"] > 1 and not depthwise:
        problem = f"It has {about['groups']} groups."
    elif any(size == 1 and k > 1 for size, k in zip(image, about["kernel"], strict=True)):
        size = "x".join(map(str, image))
        problem = f"Its window is larger than 1 along an axis of length 1 of its input of {size}."
    if problem is not None:
        yield finding(
            node,
            "convolution",
            problem,
            "FINN builds two-dimensional convolutions, dense or depthwise, with windows of 1 along axes of "
            "length 1.",
        )


def _meetings(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("add", "concat"):
        if node.attributes.get("constant"):
            continue
        if node.op == "concat":
            yield finding(
                node,
                "concatenation",
                "It joins branches, whose scales stay in front of it.",
                "Add the branches instead of joining them.",
            )
        elif node.attributes["factor"] != 1:
            yield finding(
                node,
                "difference",
                "It subtracts values, or adds a multiple of them.",
                "Add the values as they are; weights in front can take up the factor.",
                "in floats",
            )
        elif len(set(node.inputs)) == 1:
            yield finding(
                node, "same operand", "It joins values with themselves.", "Double the scale behind it."
            )
        else:
            yield from _operands_of_meeting(graph, node)


def _operands_of_meeting(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    sources = list(summands(graph, node))
    if any(is_bipolar(source) for source in sources):
        yield finding(
            node,
            "bipolar sum",
            "It adds values of -1 and 1: FINN makes sums too narrow at some widths, and builds no standalone "
            "thresholds of them.",
            "Give the quantizer of the branches 2 bits or more.",
            "wrong",
        )
    rounded = {s.attributes["quantizer"] for s in sources if s.op == "quantize"}
    if any(s.op not in ("quantize", "max_pool") for s in sources):
        yield finding(
            node,
            "quantized operands",
            "It joins values of which some are not rounded by a quantizer.",
            "Let one QuantIdentity, the same module, round all of them.",
            "in floats",
        )
    elif len(rounded) > 1:
        yield finding(
            node,
            "shared quantizer",
            f"It joins values of different quantizers, {' and '.join(sorted(rounded))}.",
            "Let one QuantIdentity, the same module, round all of them.",
        )


def _other_operations(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph:
        if node.attributes.get("target") in _ON_SCORES and is_behind_products(graph, node):
            yield finding(
                node,
                "operation behind",
                f"{node.attributes['target']} comes after the last layer that FINN builds of integers.",
                "Leave it out if class numbers or scores will do.",
                "in floats",
            )
        elif node.op in ("other", "matmul", "pad"):
            what = node.attributes.get("target", node.op)
            yield finding(
                node, "operation", f"FINN has no layer for {what} here.", "Leave it out, or to software."
            )
        elif node.op == "relu" and all(r.op == "output" for r in readers_of(graph, node)):
            yield finding(
                node,
                "ReLU at the output",
                "No quantizer follows it.",
                "Leave it to software, or use QuantReLU.",
                "in floats",
            )
        elif node.op in ("add", "mul") and not node.attributes["per_channel"]:
            yield finding(
                node,
                "constant",
                "Its constant is one per value, or activations are taken from it.",
                "Use one number, or one per channel, that scales or shifts.",
            )
        elif node.op == "mul" and not node.attributes["constant"]:
            yield finding(
                node, "product", "It multiplies activations.", "Leave it out if you can.", "in floats"
            )


MAX_WEIGHT_BITS = 16
"""Widest weights that were confirmed to come out right."""
_ON_SCORES = ("aten._softmax", "aten._log_softmax", "aten.argmax", "aten.topk")
_RULES: tuple[Rule, ...] = (
    _input_quantizer,
    _float_activations,
    _products,
    pooling,
    one_dimension,
    statistics,
    reshapes,
    _meetings,
    _other_operations,
    outputs,
)
