"""Multiply-accumulates of the operators that multiply matrices, and what they multiply.

Convolutions, matrix products, dot products, attention, recurrent layers, distances and bilinear forms, each
in whatever form PyTorch has for it: fused or not, on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from gfb_brevitas.adapters.operator_kinds import operator_name
from gfb_brevitas.costs.operator_costs import operator_cost


@dataclass(frozen=True)
class Multiplication:
    """One matrix product or convolution within an operator.

    Attributes:
        macs: Multiply-accumulates, of the whole batch.
        left: The first operand; ``None`` for values that are computed within the operator.
        right: The second one.
    """

    macs: int
    left: Tensor | None
    right: Tensor | None


Rule = Callable[..., list[Multiplication]]
"""Arguments of a call, as the operator's schema orders them, and its result."""


def multiplications(name: str, args: Sequence[Any], out: Any) -> list[Multiplication] | None:
    """What a call of an operator multiplies; ``None`` if there is no formula for it.

    Args:
        name: The operator, as :func:`~gfb_brevitas.adapters.operator_kinds.operator_name` says.
        args: Its arguments in the order of its schema.
        out: Its result.
    """
    rule = _RULES.get(name)
    if rule is None:
        return None
    return [replace(one, macs=one.macs * _real_products(one.left, one.right)) for one in rule(args, out)]


def _real_products(left: Tensor | None, right: Tensor | None) -> int:
    """Products of real numbers in one of the operands' values: four of two complex ones."""
    return prod(2 for t in (left, right) if t is not None and t.is_complex())


def multiplies(func: Any) -> bool:
    """Whether an operator is known to multiply more than element by element."""
    name = operator_name(func)
    registered = operator_cost(name)
    return name in _RULES or name.startswith("higher_order::") or bool(registered and registered.macs)


def attention(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> list[Multiplication]:
    """Queries times keys, and weights times values; a mask saves nothing."""
    rows = out.numel() // max(1, out.shape[-1])  # of all samples, heads and queries
    return [
        Multiplication(rows * key.shape[-2] * query.shape[-1], query, key),
        Multiplication(rows * value.shape[-2] * value.shape[-1], None, value),
    ]


def _matrix(left: int, right: int) -> Rule:
    def rule(args: Sequence[Any], _: Any) -> list[Multiplication]:
        one, other = args[left], args[right]
        return [Multiplication(_matrix_macs(one, other), one, other)]

    return rule


def _matrix_macs(one: Tensor, other: Tensor) -> int:
    columns = other.shape[-1] if other.dim() > 1 else 1
    if one.layout is not torch.strided:
        return int(one._nnz()) * columns  # each value that there is, with a row of the other
    if other.layout is not torch.strided:
        return int(other._nnz()) * (one.numel() // one.shape[-1])
    return one.numel() * columns


def _convolution(args: Sequence[Any], out: Any) -> list[Multiplication]:
    if args[6]:
        return _transposed_convolution(args, out)
    return _plain_convolution(args, out)


def _plain_convolution(args: Sequence[Any], out: Any) -> list[Multiplication]:
    values, weight = args[:2]
    results = out[0] if isinstance(out, (tuple, list)) else out
    return [Multiplication(results.numel() * prod(weight.shape[1:]), values, weight)]


def _transposed_convolution(args: Sequence[Any], _: Any) -> list[Multiplication]:
    values, weight = args[:2]
    return [Multiplication(values.numel() * prod(weight.shape[1:]), values, weight)]


def _time_batch_channel_convolution(args: Sequence[Any], out: Any) -> list[Multiplication]:
    values, weight = args[:2]  # weight: (kernel, channels in, channels out)
    return [Multiplication(out.numel() * prod(weight.shape[:2]), values, weight)]


def _fused_attention(args: Sequence[Any], out: Any) -> list[Multiplication]:
    return attention(args[0], args[1], args[2], out[0] if isinstance(out, (tuple, list)) else out)


def _recurrent(weights: int, layers: int, bidirectional: int) -> Rule:
    """Of a whole recurrent network: every matrix is read once a step.

    Args:
        weights: Place of the list of weights among the arguments, in the order of layers and directions.
        layers: Place of the number of layers.
        bidirectional: Place of whether there are two directions.
    """

    def rule(args: Sequence[Any], _: Any) -> list[Multiplication]:
        values, directions = args[0], 2 if args[bidirectional] else 1
        matrices = [w for w in args[weights] if w.dim() == 2]
        each = len(matrices) // (args[layers] * directions)
        reading = {direction * each for direction in range(directions)}  # those of the first layer
        steps = values.numel() // max(1, values.shape[-1])  # of all samples
        return [
            Multiplication(steps * w.numel(), values if i in reading else None, w)
            for i, w in enumerate(matrices)
        ]

    return rule


def _recurrent_layer(args: Sequence[Any], _: Any) -> list[Multiplication]:
    values, of_input, of_state = args[:3]
    steps = values.numel() // max(1, values.shape[-1])
    return [
        Multiplication(steps * of_input.numel(), values, of_input),
        Multiplication(steps * of_state.numel(), None, of_state),
    ]


def _trilinear(args: Sequence[Any], _: Any) -> list[Multiplication]:
    """Sum over products of three tensors: of the first two, then with the third."""
    first, second, third, *expanded = args[:6]
    sizes = _broadcast([_expand(t, dims) for t, dims in zip((first, second, third), expanded, strict=True)])
    before = [d for d in args[6] if d in expanded[2]]  # what is summed before the third comes in
    return [
        Multiplication(prod(sizes), first, second),
        Multiplication(prod(n for d, n in enumerate(sizes) if d not in before), None, third),
    ]


def _expand(tensor: Tensor, dims: Sequence[int]) -> list[int]:
    shape = list(tensor.shape)
    for dim in dims:
        shape.insert(dim, 1)
    return shape


def _broadcast(shapes: Sequence[Sequence[int]]) -> list[int]:
    return [max(sizes) for sizes in zip(*shapes, strict=True)]


def _distances(args: Sequence[Any], out: Any) -> list[Multiplication]:
    """Of every pair of rows, the squares (or other powers) of their differences."""
    one, other = args[0], args[1] if len(args) > 1 and isinstance(args[1], Tensor) else args[0]
    return [Multiplication(out.numel() * one.shape[-1], one, other)]


def _packed_weight(args: Sequence[Any], out: Any) -> list[Multiplication]:
    return [Multiplication(out.numel() * args[0].shape[-1], args[0], args[1])]


def _each(names: str, rule: Rule) -> Iterator[tuple[str, Rule]]:
    yield from ((f"aten::{name}", rule) for name in names.split())


_RULES: dict[str, Rule] = dict(
    [
        *_each("mm bmm mv dot vdot _int_mm _sparse_mm", _matrix(0, 1)),
        *_each("addmm baddbmm addmv addbmm _addmm_activation _sparse_addmm", _matrix(1, 2)),
        *_each("_scaled_mm _scaled_mm_v2 mkldnn_linear", _packed_weight),
        *_each("_weight_int8pack_mm _weight_int4pack_mm _weight_int4pack_mm_for_cpu", _packed_weight),
        *_each("convolution _convolution convolution_overrideable", _convolution),
        *_each("cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu", _plain_convolution),
        *_each("miopen_convolution miopen_depthwise_convolution mkldnn_convolution", _plain_convolution),
        *_each("_conv_depthwise2d conv_depthwise3d _slow_conv2d_forward", _plain_convolution),
        *_each("slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d", _plain_convolution),
        *_each("_nnpack_spatial_convolution _mps_convolution", _plain_convolution),
        *_each("cudnn_convolution_transpose miopen_convolution_transpose", _transposed_convolution),
        *_each("slow_conv_transpose2d slow_conv_transpose3d", _transposed_convolution),
        *_each("conv_tbc", _time_batch_channel_convolution),
        *_each("_scaled_dot_product_flash_attention _scaled_dot_product_cudnn_attention", _fused_attention),
        *_each("_scaled_dot_product_flash_attention_for_cpu", _fused_attention),
        *_each("_scaled_dot_product_efficient_attention", _fused_attention),
        *_each("_scaled_dot_product_fused_attention_overrideable", _fused_attention),
        *_each("_scaled_dot_product_attention_math_for_mps", _fused_attention),
        *_each("mkldnn_rnn_layer", _recurrent_layer),
        *_each("_cudnn_rnn", _recurrent(weights=1, layers=9, bidirectional=13)),
        *_each("miopen_rnn", _recurrent(weights=1, layers=8, bidirectional=12)),
        *_each("_lstm_mps", _recurrent(weights=2, layers=4, bidirectional=7)),
        *_each("_trilinear", _trilinear),
        *_each("_cdist_forward _euclidean_dist _pdist_forward", _distances),
    ]
)
