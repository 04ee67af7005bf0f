"""The C++ source of a loop that computes a group of element-wise operations.

Each operation is written as PyTorch computes it in float32, so the loop's results are those of the
operations one by one, bit for bit. Functions that PyTorch approximates in its own way (exp, sqrt, ...) are
not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from gfb_brevitas.prepared.site_values import decode, encode, round_to_scale

aten = torch.ops.aten
Kind = Literal["float", "uint8_t", "bool"]
DIMENSIONS = 4
"""Nested loops, after dimensions that lie behind each other were joined."""

PARALLEL_FROM = 1 << 16
"""Elements from which on several threads share the work."""

SHORT = 64
"""Longest innermost loop whose length is written into the source."""


def _clamped(x: str, low: str | None = None, high: str | None = None) -> str:
    # In this form NaN stays NaN.
    x = x if low is None else f"({x} < {low} ? {low} : {x})"
    return x if high is None else f"clamp_max({x}, {high})"


def _encode(x: str, scale: str, low: str, high: str, bipolar: str) -> str:
    return f"({bipolar} ? ({x} >= 0 ? 2.0f : 0.0f) : codes({x}, {scale}, {low}, {high}) - {low})"


def _round_to_scale(x: str, scale: str, low: str, high: str, bipolar: str) -> str:
    return f"({bipolar} ? ({x} >= 0 ? {scale} : -{scale}) : codes({x}, {scale}, {low}, {high}) * {scale})"


_OPERATORS: dict[Any, Callable[..., str]] = {
    encode: _encode,
    decode: lambda codes, scale, low: f"(({codes} + {low}) * {scale})",
    round_to_scale: _round_to_scale,
    aten.add.Tensor: lambda x, y: f"({x} + {y})",
    aten.sub.Tensor: lambda x, y: f"({x} - {y})",
    aten.mul.Tensor: lambda x, y: f"({x} * {y})",
    aten.div.Tensor: lambda x, y: f"({x} / {y})",
    aten.rsub.Scalar: lambda x, y: f"({y} - {x})",
    aten.neg.default: lambda x: f"(-{x})",
    aten.abs.default: lambda x: f"__builtin_fabsf({x})",
    aten.relu.default: lambda x: _clamped(x, "0.0f"),
    aten.hardtanh.default: lambda x, low="-1.0f", high="1.0f": _clamped(x, low, high),
    aten.clamp.default: _clamped,
    aten.clamp_min.default: _clamped,
    aten.clamp_max.default: lambda x, high: _clamped(x, None, high),
    aten.minimum.default: lambda x, y: f"(({x} < {y} || {x} != {x}) ? {x} : {y})",
    aten.maximum.default: lambda x, y: f"(({x} > {y} || {x} != {x}) ? {x} : {y})",
    aten.leaky_relu.default: lambda x, slope="0.01f": f"({x} > 0 ? {x} : {x} * {slope})",
    aten.hardswish.default: lambda x: f"({x} * {_clamped(f'({x} + 3.0f)', '0.0f', '6.0f')} / 6.0f)",
    aten.hardsigmoid.default: lambda x: f"({_clamped(f'({x} + 3.0f)', '0.0f', '6.0f')} / 6.0f)",
    aten.reciprocal.default: lambda x: f"(1.0f / {x})",
    aten.round.default: lambda x: f"__builtin_nearbyintf({x})",
    aten.floor.default: lambda x: f"__builtin_floorf({x})",
    aten.where.self: lambda condition, x, y: f"({condition} ? {x} : {y})",
    aten.gt.Tensor: lambda x, y: f"({x} > {y})",
    aten.lt.Tensor: lambda x, y: f"({x} < {y})",
    aten.ge.Scalar: lambda x, y: f"({x} >= {y})",
    aten.gt.Scalar: lambda x, y: f"({x} > {y})",
    aten.lt.Scalar: lambda x, y: f"({x} < {y})",
}
_COMPARISONS = {aten.gt.Tensor, aten.lt.Tensor, aten.ge.Scalar, aten.gt.Scalar, aten.lt.Scalar}
_HEAD = """#include <stdint.h>
static inline float clamp_max(float x, float high) { return x > high ? high : x; }
static inline float codes(float x, float scale, float low, float high) {
  x = __builtin_nearbyintf(x / scale);
  x = x < low ? low : x;
  return x > high ? high : x;
}
"""


def can_be_written(node: fx.Node) -> bool:
    """Whether the source of an operation is known."""
    return node.target in _OPERATORS and not node.kwargs


def kind_of(node: fx.Node) -> Kind:
    """The type of an operation's result."""
    if node.target is encode:
        return "uint8_t"
    return "bool" if node.target in _COMPARISONS else "float"


def kinds_of_arguments(graph: fx.Graph) -> list[Kind]:
    """The types that tensors in the places of a group's placeholders must have."""
    kinds: dict[fx.Node, Kind] = dict.fromkeys(graph.find_nodes(op="placeholder"), "float")
    for node in graph.find_nodes(op="call_function", target=decode):
        kinds[node.args[0]] = "uint8_t"
    for node in graph.find_nodes(op="call_function", target=aten.where.self):
        kinds[node.args[0]] = "bool"
    return [kinds[node] for node in graph.find_nodes(op="placeholder")]


@dataclass(frozen=True)
class Nest:
    """The loops of a kernel, the innermost last; always :data:`DIMENSIONS` of them.

    Attributes:
        sizes: How often each runs.
        steps: Of the result and of every tensor, how many values further each iteration is.
    """

    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]


def loop_source(graph: fx.Graph, nest: Nest, forms: Sequence[str]) -> str:
    """The function ``loop(pointers, sizes, steps, numbers, threads)``.

    What makes loops fast is written into it: which steps are 0 or 1, and how long a short innermost loop is.

    Args:
        graph: Placeholders, operations and the one result of a group.
        nest: The loops.
        forms: Of each placeholder what it is: ``"tensor"``, ``"number"``, ``"true"`` or ``"false"``.
    """
    names: dict[fx.Node, str] = {}
    taken, given, inside = [], [], []
    numbers = tensors = 0
    kinds = kinds_of_arguments(graph)
    for node, kind, form in zip(graph.find_nodes(op="placeholder"), kinds, forms, strict=True):
        names[node] = node.name if form in ("tensor", "number") else form
        if form == "number":
            taken.append(f"const float {node.name}")
            given.append(f"numbers[{numbers}]")
            numbers += 1
        elif form == "tensor":
            tensors += 1
            begin = f"((const {kind}*)pointers[{tensors}]{_begin(nest, tensors)})"
            if step := nest.steps[tensors][-1]:
                taken.append(f"const {kind}* __restrict p{tensors}, const long step{tensors}")
                given.append(f"{begin}, steps[{DIMENSIONS * tensors + DIMENSIONS - 1}]")
                place = "i" if step == 1 else f"i * step{tensors}"
                inside.append(f"const {_held(kind)} {node.name} = p{tensors}[{place}];")
            else:
                taken.append(f"const {_held(kind)} {node.name}")
                given.append(f"{begin}[0]")
    for node in (n for n in graph.nodes if n.op == "call_function"):
        names[node] = node.name
        inside.append(f"const {_held(kind_of(node))} {node.name} = {_expression(node, names)};")
    (result,) = graph.find_nodes(op="output")[0].all_input_nodes
    stored = f"(uint8_t)(int){names[result]}" if kind_of(result) == "uint8_t" else names[result]
    inside.append(f"out[i] = {stored};")
    return _HEAD + _row(kind_of(result), taken, inside) + _function(nest, kind_of(result), given)


def _held(kind: Kind) -> str:
    # Codes are kept as the whole numbers that they are until they are stored.
    return "bool" if kind == "bool" else "float"


def _expression(node: fx.Node, names: dict[fx.Node, str]) -> str:
    arguments = [None if a is None else names[a] for a in node.args]  # type: ignore[index]
    return _OPERATORS[node.target](*arguments)


def _begin(nest: Nest, tensor: int) -> str:
    """Where the innermost loop begins in a tensor."""
    moving = [d for d in range(DIMENSIONS - 1) if nest.steps[tensor][d]]
    return "".join(f" + i{d} * steps[{DIMENSIONS * tensor + d}]" for d in moving)


def _row(kind: Kind, taken: list[str], inside: list[str]) -> str:
    """The innermost loop: a function, whose arguments are promised to be apart from each other."""
    arguments = ", ".join([f"{kind}* __restrict out", "const long length", *taken])
    head = f"static inline __attribute__((always_inline)) void row({arguments}) {{"
    return "\n".join([head, "for (long i = 0; i < length; i++) {", *inside, "}}"]) + "\n"


def _function(nest: Nest, kind: Kind, given: list[str]) -> str:
    shared = next((d for d, size in enumerate(nest.sizes[:-1]) if size > 1), 0)
    loops = [f"for (long i{d} = 0; i{d} < size{d}; i{d}++)" for d in range(DIMENSIONS - 1)]
    loops.insert(shared, "#pragma omp parallel for num_threads(threads) if(threads > 1)")
    length = nest.sizes[-1] if nest.sizes[-1] <= SHORT else f"size{DIMENSIONS - 1}"
    out = f"({kind}*)pointers[0]{_begin(nest, 0)}"
    arguments = "void** pointers, const long* sizes, const long* steps, const float* numbers, int threads"
    head = f'extern "C" void loop({arguments}) {{'
    # Local ones: a byte that is written might be anything, the sizes too.
    sizes = [f"const long size{d} = sizes[{d}];" for d in range(DIMENSIONS)]
    call = f"row({', '.join([out, str(length), *given])});"
    return "\n".join([head, *sizes, *loops, call, "}"]) + "\n"
