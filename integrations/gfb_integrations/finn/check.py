"""Whether FINN builds a model, layer by layer, found out before anything is trained.

Every rule was confirmed by running finn-plus 1.6.1 on a small model that breaks it; see
``tests/integrations/finn/patterns.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from gfb_brevitas.adapters import SearchableModel, record_layers
from gfb_brevitas.adapters.tracing import ExampleInputs
from gfb_brevitas.layer_graph import LayerGraph, LayerNode
from gfb_integrations.finn.findings import CheckReport, Finding, Severity

MAX_ACTIVATION_BITS = 8
"""Widest activation that FINN turns into thresholds, its default of ``max_multithreshold_bit_width``."""

_ACTIVATIONS = ("", "ReLU", "Hardtanh")
_TRANSPARENT = ("reshape", "batch_norm", "relu")
Rule = Callable[[LayerGraph], Iterator[Finding]]


def check(model: nn.Module, example_inputs: ExampleInputs) -> CheckReport:
    """Say for each layer whether FINN builds it, why not, and what to change.

    FINN itself is not needed. Branches of different scales, which Brevitas refuses to add, are found too.

    Example:
        >>> for finding in check(model, images[:1]).findings:  # doctest: +SKIP
        ...     print(finding.layer, finding.problem, finding.advice)

    Args:
        model: A Brevitas model or a searchable one; it is not changed.
        example_inputs: One batch: a tensor, a tuple of positional or a mapping of keyword arguments.

    Raises:
        UntraceableModelError: If the model fails on ``example_inputs``.
    """
    brevitas_model = model.model if isinstance(model, SearchableModel) else model
    return check_layers(record_layers(brevitas_model, example_inputs))


def check_layers(graph: LayerGraph) -> CheckReport:
    """:func:`check` on layers that have been recorded."""
    order = {node.name: position for position, node in enumerate(graph)}
    findings = sorted((f for rule in _RULES for f in rule(graph)), key=lambda f: order[f.layer])
    return CheckReport(findings=tuple(findings), layers=len(graph))


def _finding(
    node: LayerNode, rule: str, problem: str, advice: str, severity: Severity = "refused"
) -> Finding:
    return Finding(layer=node.name, rule=rule, severity=severity, problem=problem, advice=advice)


# --- inputs


def _input_quantizer(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("input"):
        for reader in _readers_past_constants(graph, node):
            if reader.op not in ("quantize", "output"):
                yield _finding(
                    reader,
                    "input quantizer",
                    "It reads the input of the model as floats.",
                    "Put a QuantIdentity of at most 8 bits with return_quant_tensor=True in front.",
                    "off the FPGA",
                )


# --- activations


def _activations(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("quantize"):
        about = node.attributes
        if about["kind"] == "truncation":
            yield from _truncation(node)
        elif about["bits"] is None:
            yield _finding(
                node, "integers", "Its values are not integers.", "Use an integer quantizer of 2 to 8 bits."
            )
        else:
            yield from _activation(graph, node)


def _activation(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    about = node.attributes
    bits = about["bits"]
    if bits > MAX_ACTIVATION_BITS:
        yield _finding(
            node,
            "activation width",
            f"Its activations have {bits:g} bits.",
            f"FINN makes thresholds of at most {MAX_ACTIVATION_BITS} bits: lower bit_width.",
        )
    if about["per_channel"]:
        yield _finding(
            node,
            "activation scale",
            "Its activations have a scale per channel.",
            "Use one scale per tensor (scaling_per_output_channel=False).",
        )
    if about["zero_point"]:
        yield _finding(
            node, "zero point", "Its activations have a zero point.", "Use a quantizer with the zero point 0."
        )
    if about["activation"] not in _ACTIVATIONS:
        yield _finding(
            node,
            "activation function",
            f"FINN has no thresholds for {about['activation']}.",
            "Use QuantReLU or QuantIdentity.",
        )
    if bits == 1 and about["signed"]:
        yield from _bipolar_activation(graph, node)
    if about["signed"]:
        yield from _signed(graph, node)


def _bipolar_activation(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    readers = list(_readers_past_pooling(graph, node))
    for reader in readers:
        if reader.op == "avg_pool":
            yield _finding(
                reader,
                "bipolar average",
                "It averages activations of -1 and 1, whose step of 2 FINN's truncation does not know.",
                "Give the activations 2 bits or more.",
                "wrong",
            )
        elif any(reader.attributes.get("padding", ())) and reader.op in ("conv", "max_pool"):
            yield _finding(
                reader,
                "bipolar padding",
                "It pads activations of -1 and 1 with zeros, which have no 1-bit value.",
                "Leave out the padding, or give the activations 2 bits or more.",
                "wrong",
            )
    in_products = any(source.op in ("conv", "linear") for source in _sources(graph, node))
    wider = [r for r in readers if r.op != "max_pool" and r.attributes.get("weight_bits") != 1]
    if wider and not in_products:
        yield _finding(
            node,
            "bipolar thresholds",
            "It makes -1 and 1 of values that come from no product, for layers with wider weights.",
            "Give it 2 bits or more, or 1-bit weights to what reads it.",
        )


def _signed(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    if any(source.op == "relu" for source in graph.producers(node)):
        yield _finding(node, "ReLU", "A signed quantizer follows a ReLU.", "Use QuantReLU in place of both.")
    for reader in _readers(graph, node):
        if reader.op == "max_pool" and any(reader.attributes["padding"]):
            yield _finding(
                reader,
                "signed padding",
                "It pads signed values, whose smallest one is not zero.",
                "Leave out the padding, or pool the values of a QuantReLU.",
            )


def _truncation(node: LayerNode) -> Iterator[Finding]:
    if node.attributes["rounding"] != "FLOOR":
        yield _finding(
            node,
            "truncation",
            f"It truncates with rounding mode {node.attributes['rounding']}.",
            'Use trunc_quant=TruncTo8bit, float_to_int_impl_type="FLOOR".',
        )


def _float_activations(graph: LayerGraph) -> Iterator[Finding]:
    """Activation functions and values that no quantizer follows where FINN needs integers."""
    for node in graph.of("conv", "linear", "max_pool", "avg_pool"):
        for source in graph.producers(node):
            origin = _origin(graph, source)
            if origin.op not in ("quantize", "input", "max_pool", "avg_pool", "concat", "add"):
                yield _finding(
                    node,
                    "quantized input",
                    f"It reads values of {origin.name!r} that no quantizer has rounded.",
                    "Put a QuantReLU or QuantIdentity of at most 8 bits between them.",
                )


# --- products


def _products(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("conv", "linear"):
        about = node.attributes
        if about["weight_bits"] is None:
            yield _finding(
                node,
                "quantized weights",
                "Its weights are floats.",
                "Use a Brevitas layer with weight_quant.",
            )
        if about["weight_zero_point"]:
            yield _finding(
                node, "weight zero point", "Its weights have a zero point.", "Use symmetric weights."
            )
        if about["bias_quantizer"] is not None and node.op == "conv":
            yield _finding(
                node,
                "quantized bias",
                "Its bias is quantized.",
                "Leave the bias in floats (bias_quant=None); FINN puts it into the thresholds.",
            )
        if node.op == "conv":
            yield from _convolution(node)
        yield from _bipolar_product(graph, node)


def _bipolar_product(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    """FINN makes the accumulator of such a product too narrow for several thresholds."""
    source = _origin(graph, graph.producers(node)[0])
    about = source.attributes
    if (
        node.attributes["weight_bits"] != 1
        or source.op != "quantize"
        or about["bits"] != 1
        or not about["signed"]
    ):
        return
    for reader in _quantizers_behind(graph, node):
        if reader.attributes["bits"] != 1:
            yield _finding(
                node,
                "bipolar product",
                f"Its weights and inputs are -1 and 1; {reader.name!r} rounds its sums to more than 1 bit.",
                "Give the weights or the inputs 2 bits or more.",
                "wrong",
            )


def _quantizers_behind(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    for reader in graph.consumers(node):
        if reader.op == "quantize":
            yield reader
        elif reader.op in _TRANSPARENT:
            yield from _quantizers_behind(graph, reader)


def _convolution(node: LayerNode) -> Iterator[Finding]:
    about = node.attributes
    depthwise = about["groups"] == about["in_channels"] == about["out_channels"]
    problem = None
    if about["transposed"]:
        problem = "It is a transposed convolution."
    elif len(about["kernel"]) != 2:
        problem = f"It is a convolution over {len(about['kernel'])} dimension(s)."
    elif about["groups"] > 1 and not depthwise:
        problem = f"It has {about['groups']} groups."
    if problem is not None:
        yield _finding(
            node, "convolution", problem, "FINN builds two-dimensional convolutions, dense or depthwise."
        )


# --- pooling, additions, everything else


def _pooling(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("avg_pool"):
        readers = _readers(graph, node)
        if not all(r.op == "quantize" and r.attributes["kind"] == "truncation" for r in readers):
            yield _finding(
                node,
                "average pooling",
                "Its averages are not truncated to integers.",
                'Use TruncAvgPool2d with trunc_quant=TruncTo8bit and float_to_int_impl_type="FLOOR".',
            )
        elif node.attributes["adaptive"]:
            yield _finding(
                node,
                "average pooling",
                "The size of its output is given, not that of its window.",
                f"Use TruncAvgPool2d({node.attributes['kernel']}, ...), which computes the same.",
            )
        if any(source.op == "max_pool" for source in graph.producers(node)):
            yield _finding(
                node,
                "average of maxima",
                "It averages what maximum pooling puts out, whose sign FINN does not find.",
                "Put the average in front of the maximum pooling, or a QuantReLU between them.",
            )
    for node in graph.of("max_pool"):
        if any(step != 1 for step in node.attributes["dilation"]):
            yield _finding(node, "pooling", "Its window is dilated.", "Use dilation=1.")
        if node.attributes["ceil_mode"]:
            yield _finding(
                node, "pooling", "It rounds its output size up.", "Use ceil_mode=False, and pad if needed."
            )


def _meetings(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph.of("add", "concat"):
        if node.attributes.get("constant"):
            continue
        if node.op == "concat":
            yield _finding(
                node,
                "concatenation",
                "It joins branches, whose scales stay in front of it.",
                "Add the branches instead of joining them.",
            )
        elif len(set(node.inputs)) == 1:
            yield _finding(
                node, "same operand", "It joins values with themselves.", "Double the scale behind it."
            )
        else:
            yield from _operands_of_meeting(graph, node)


def _operands_of_meeting(graph: LayerGraph, node: LayerNode) -> Iterator[Finding]:
    sources = list(_summands(graph, node))
    rounded = {s.attributes["quantizer"] for s in sources if s.op == "quantize"}
    if any(s.op not in ("quantize", "max_pool") for s in sources):
        yield _finding(
            node,
            "quantized operands",
            "It joins values of which some are not rounded by a quantizer.",
            "Let one QuantIdentity, the same module, round all of them.",
            "in floats",
        )
    elif len(rounded) > 1:
        yield _finding(
            node,
            "shared quantizer",
            f"It joins values of different quantizers, {' and '.join(sorted(rounded))}.",
            "Let one QuantIdentity, the same module, round all of them.",
        )


def _summands(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What made the values that meet in ``node``; sums of sums are taken apart."""
    for source in graph.producers(node):
        origin = _origin(graph, source)
        if origin.op == "add" and not origin.attributes["constant"]:
            yield from _summands(graph, origin)
        else:
            yield origin


def _other_operations(graph: LayerGraph) -> Iterator[Finding]:
    for node in graph:
        if node.op == "other" and _is_behind_products(graph, node):
            yield _finding(
                node,
                "operation behind",
                f"{node.attributes['target']} comes after the last layer that FINN builds of integers.",
                "Leave it out if class numbers or scores will do.",
                "in floats",
            )
        elif node.op in ("other", "matmul", "pad"):
            what = node.attributes.get("target", node.op)
            yield _finding(
                node, "operation", f"FINN has no layer for {what} here.", "Leave it out, or to software."
            )
        elif node.op == "mul" and not node.attributes["constant"]:
            yield _finding(
                node, "product", "It multiplies activations.", "Leave it out if you can.", "in floats"
            )


_RULES: tuple[Rule, ...] = (
    _input_quantizer,
    _activations,
    _float_activations,
    _products,
    _pooling,
    _meetings,
    _other_operations,
)


def _origin(graph: LayerGraph, node: LayerNode) -> LayerNode:
    """What made the values of ``node``, past what only moves them or is taken up by thresholds."""
    while node.op in ("reshape", "max_pool"):
        (node,) = graph.producers(node)[:1]
    return node


def _readers(graph: LayerGraph, node: LayerNode) -> list[LayerNode]:
    """What reads the values of ``node``, past what only moves them."""
    found = []
    for reader in graph.consumers(node):
        found.extend(_readers(graph, reader) if reader.op == "reshape" else [reader])
    return found


def _readers_past_constants(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What reads the values of ``node``, past constants, which thresholds take up."""
    for reader in _readers(graph, node):
        if reader.attributes.get("constant"):
            yield from _readers_past_constants(graph, reader)
        else:
            yield reader


def _is_behind_products(graph: LayerGraph, node: LayerNode) -> bool:
    """Whether ``node`` reads sums of products and nothing but operations of its kind follows."""
    from_products = all(source.op in ("conv", "linear", "other") for source in _sources(graph, node))
    return from_products and all(
        reader.op == "output" or (reader.op == "other" and _is_behind_products(graph, reader))
        for reader in _readers(graph, node)
    )


def _readers_past_pooling(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    for reader in _readers(graph, node):
        yield reader
        if reader.op == "max_pool":
            yield from _readers_past_pooling(graph, reader)


def _sources(graph: LayerGraph, node: LayerNode) -> Iterator[LayerNode]:
    """What made the values of ``node``, past what thresholds take up."""
    for source in graph.producers(node):
        if source.op in _TRANSPARENT:
            yield from _sources(graph, source)
        else:
            yield source
