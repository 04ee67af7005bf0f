"""What PyTorch's operators and Brevitas' quantizers are called in a layer graph, and their attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from gfb_brevitas.layer_graph import LayerOperation

aten = torch.ops.aten

Attributes = dict[str, Any]
IsComputed = Callable[[Any], bool]
"""Whether a tensor was computed from the model's input."""
QuantizerOf = Callable[[Any], Mapping[str, Any] | None]
"""What is known of the quantizer of a weight or bias tensor."""


def _packets(*names: str) -> frozenset[Any]:
    return frozenset(getattr(aten, name) for name in names if hasattr(aten, name))


_KEEPS_VALUES = _packets("clone", "detach", "alias", "contiguous", "_to_copy", "lift_fresh", "dropout")
_RESHAPES = _packets(
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "movedim"),
    *("squeeze", "unsqueeze", "expand", "flatten", "unflatten"),
)
_BATCH_NORMS = _packets(
    *("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "batch_norm"),
    *("_native_batch_norm_legit_no_training", "miopen_batch_norm", "_batch_norm_with_update"),
)
_MAX_POOLS = _packets("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
_AVERAGE_POOLS = _packets("avg_pool1d", "avg_pool2d", "avg_pool3d")
_ADAPTIVE_POOLS = _packets("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
_ADDITIONS = _packets("add", "add_", "sub", "sub_")
_MULTIPLICATIONS = _packets("mul", "mul_", "div", "div_")


def keeps_values(operator: Any) -> bool:
    """Whether an operator returns the values it gets, in the same shape."""
    return operator in _KEEPS_VALUES


def describe(
    operator: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    result: Tensor,
    is_computed: IsComputed,
    quantizer_of: QuantizerOf,
) -> tuple[LayerOperation, Attributes]:
    """The operation and the attributes of one call of an ATen operator.

    Args:
        operator: The operator's overload packet.
        args: Positional arguments.
        kwargs: Keyword arguments.
        result: Its first result.
        is_computed: Whether a tensor was computed from the model's input.
        quantizer_of: What is known of the quantizer of a weight or bias tensor.
    """
    if operator is aten.convolution:
        return "conv", _convolution(args, quantizer_of)
    if operator in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
        return _product(operator, args, is_computed, quantizer_of)
    if operator in _ADDITIONS or operator in _MULTIPLICATIONS:
        both = len(args) > 1 and all(isinstance(a, Tensor) and is_computed(a) for a in args[:2])
        about = {
            "constant": not both,
            "per_channel": both or _is_per_channel(operator, args, result, is_computed),
        }
        if operator in _MULTIPLICATIONS:
            return "mul", about
        sign = -1.0 if operator in (aten.sub, aten.sub_) else 1.0
        return "add", about | {"factor": sign * float(kwargs.get("alpha", 1))}
    if operator in _BATCH_NORMS:
        if _normalizes_by_its_input(operator, args):
            return "other", {"target": str(operator), "own_statistics": True}
        return "batch_norm", {}
    if operator in (aten.relu, aten.relu_):
        return "relu", {}
    if operator is aten.cat:
        dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return "concat", {"dim": int(dim)}
    if operator is aten.constant_pad_nd:
        value = args[2] if len(args) > 2 else kwargs.get("value", 0)
        return "pad", {"padding": tuple(args[1]), "value": float(value)}
    if operator in _RESHAPES:
        return "reshape", {"target": str(operator)}
    return _pooling(operator, args, result) or ("other", {"target": str(operator)})


def _normalizes_by_its_input(operator: Any, args: tuple[Any, ...]) -> bool:
    """Whether a batch norm takes its statistics from its input: also an instance norm, which is one below."""
    if operator in _packets("_batch_norm_with_update"):
        return True
    flags = [argument for argument in args if isinstance(argument, bool)]
    return bool(flags and flags[0])  # `training`


def _is_per_channel(operator: Any, args: tuple[Any, ...], result: Tensor, is_computed: IsComputed) -> bool:
    """Whether a constant scales or shifts: one number, or one per channel, and not on the left of - or /."""
    left, right = args[:2]
    from_left = not (isinstance(left, Tensor) and is_computed(left))
    if from_left and operator in _packets("sub", "sub_", "div", "div_"):
        return False
    constant = left if from_left else right
    if not isinstance(constant, Tensor) or constant.numel() == 1:
        return True
    channels = 1 if result.dim() > 2 else result.dim() - 1
    shape = (1,) * (result.dim() - constant.dim()) + tuple(constant.shape)
    return all(size == 1 for axis, size in enumerate(shape) if axis != channels)


def _convolution(args: tuple[Any, ...], quantizer_of: QuantizerOf) -> Attributes:
    _, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    outputs, inputs = (1, 0) if transposed else (0, 1)
    return {
        "kernel": tuple(weight.shape[2:]),
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": int(groups),
        "transposed": bool(transposed),
        "in_channels": int(weight.shape[inputs]) * (1 if transposed else int(groups)),
        "out_channels": int(weight.shape[outputs]) * (int(groups) if transposed else 1),
        **_parameters(weight, bias, quantizer_of),
    }


def _product(
    operator: Any, args: tuple[Any, ...], is_computed: IsComputed, quantizer_of: QuantizerOf
) -> tuple[LayerOperation, Attributes]:
    added = operator in (aten.addmm, aten.baddbmm)
    left, right = args[1:3] if added else args[:2]
    if is_computed(left) and is_computed(right):
        return "matmul", {}
    weight = right if is_computed(left) else left
    bias = args[0] if added else None
    inputs, outputs = weight.shape[-2:]
    return "linear", {
        "in_features": int(inputs),
        "out_features": int(outputs),
        "vectors": 0,  # per sample; set where the batch is known
        **_parameters(weight, bias, quantizer_of),
    }


def _parameters(weight: Any, bias: Any, quantizer_of: QuantizerOf) -> Attributes:
    about_weight, about_bias = quantizer_of(weight) or {}, quantizer_of(bias) if bias is not None else None
    return {
        "weight_quantizer": about_weight.get("quantizer"),
        "weight_bits": about_weight.get("bits"),
        "weight_signed": about_weight.get("signed"),
        "weight_narrow_range": about_weight.get("narrow_range"),
        "weight_per_channel": about_weight.get("per_channel"),
        "weight_zero_point": about_weight.get("zero_point"),
        "bias": bias is not None,
        "bias_quantizer": (about_bias or {}).get("quantizer"),
        "bias_bits": (about_bias or {}).get("bits"),
    }


def _pooling(
    operator: Any, args: tuple[Any, ...], result: Tensor
) -> tuple[LayerOperation, Attributes] | None:
    if operator in _MAX_POOLS or operator in _AVERAGE_POOLS:
        return _windows("max_pool" if operator in _MAX_POOLS else "avg_pool", args)
    if operator in _ADAPTIVE_POOLS or (operator is aten.mean and _is_over_positions(args)):
        return "avg_pool", _global_windows(args[0], result)
    return None


def _windows(op: LayerOperation, args: tuple[Any, ...]) -> tuple[LayerOperation, Attributes]:
    spatial = args[0].dim() - 2
    ceil_mode = 5 if op == "max_pool" else 4
    kernel = _tuple(args[1], spatial)
    dilation = args[4] if op == "max_pool" and len(args) > 4 else 1
    return op, {
        "kernel": kernel,
        "stride": _tuple(args[2], spatial) if len(args) > 2 and args[2] else kernel,
        "padding": _tuple(args[3], spatial) if len(args) > 3 else (0,) * spatial,
        "dilation": _tuple(dilation, spatial),
        "ceil_mode": bool(args[ceil_mode]) if len(args) > ceil_mode else False,
        "adaptive": False,
    }


def _is_over_positions(args: tuple[Any, ...]) -> bool:
    rank = args[0].dim()
    dims = args[1] if len(args) > 1 and args[1] is not None else ()
    return rank > 2 and sorted(d % rank for d in dims) == list(range(2, rank))


def _global_windows(source: Tensor, result: Tensor) -> Attributes:
    spatial = source.dim() - 2
    sizes = source.shape[2:]
    outputs = result.shape[2:] if result.dim() == source.dim() else (1,) * spatial
    stride = tuple(int(n) // int(m) for n, m in zip(sizes, outputs, strict=True))
    kernel = tuple(int(n) - (int(m) - 1) * s for n, m, s in zip(sizes, outputs, stride, strict=True))
    return {
        "kernel": kernel,
        "stride": stride,
        "padding": (0,) * spatial,
        "dilation": (1,) * spatial,
        "ceil_mode": False,
        "adaptive": True,
    }


def _tuple(value: Any, length: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(int(v) for v in (values * length if len(values) == 1 else values))


def quantizer(name: str, kind: str, proxy: QuantProxyFromInjector, result: Any) -> Attributes:
    """What is known of a quantizer that has just run.

    Args:
        name: Its name.
        kind: Its role, see :func:`~gfb_brevitas.adapters.eligibility.kind_of`.
        proxy: Brevitas' proxy.
        result: What the proxy returned.
    """
    about: Attributes = {"quantizer": name, "kind": kind, "activation": _activation(proxy)}
    rounding = getattr(proxy, "rounding_mode", None)
    about["rounding"] = None if rounding is None else str(rounding).upper()
    narrow = getattr(proxy, "is_narrow_range", None)
    about["narrow_range"] = bool(narrow) if narrow is not None else False
    if not isinstance(result, IntQuantTensor):
        return (
            about | dict.fromkeys(("bits", "signed", "scale")) | {"zero_point": False, "per_channel": False}
        )
    scale = result.scale
    several = isinstance(scale, Tensor) and scale.numel() > 1
    return about | {
        "bits": float(torch.as_tensor(result.bit_width).max()),
        "signed": bool(result.signed),
        "zero_point": bool(torch.as_tensor(result.zero_point).ne(0).any()),
        "per_channel": several,
        "scale": None if several else float(scale),
    }


def _activation(proxy: QuantProxyFromInjector) -> str:
    if not isinstance(proxy, ActQuantProxyFromInjectorBase):
        return ""
    function = getattr(proxy.fused_activation_quant_proxy, "activation_impl", None)
    if isinstance(function, nn.Sequential) and len(function) == 1:
        function = function[0]
    name = type(function).__name__
    return "" if function is None or isinstance(function, nn.Identity) or name == "Identity" else name
