"""Which Brevitas quantizers can be searched, and how; the others with the reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from brevitas.core.bit_width import BitWidthConst, BitWidthParameter, BitWidthStatefulConst
from brevitas.core.function_wrapper import RoundSte
from brevitas.core.quant import BinaryQuant, ClampedBinaryQuant, IntQuant, RescalingIntQuant, TernaryQuant
from brevitas.core.restrict_val import PowerOfTwoRestrictValue, QuantRestrictValue
from brevitas.core.scaling import ConstScaling, IntScaling
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.proxy.parameter_quant import BiasQuantProxyFromInjectorBase, WeightQuantProxyFromInjectorBase
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.proxy.runtime_quant import (
    ActQuantProxyFromInjectorBase,
    ClampQuantProxyFromInjector,
    DynamicActQuantProxyFromInjector,
    TruncQuantProxyFromInjector,
)
from torch import nn

Scheme = Literal["learned", "native"]


class Refusal(str):
    """The reason why a quantizer's bit width is not searched."""


def named_proxies(model: nn.Module) -> Iterator[tuple[str, QuantProxyFromInjector]]:
    """Every enabled quantizer proxy once, under its first name, in the order of ``named_modules``."""
    for name, module in model.named_modules():
        if isinstance(module, QuantProxyFromInjector) and module.is_quant_enabled:
            yield name, module


def kind_of(proxy: QuantProxyFromInjector) -> str:
    """The role of a proxy: weight, activation, bias, truncation, clamp or other."""
    if isinstance(proxy, WeightQuantProxyFromInjectorBase):
        return "weight"
    if isinstance(proxy, ActQuantProxyFromInjectorBase):
        return "activation"
    if isinstance(proxy, BiasQuantProxyFromInjectorBase):
        return "bias"
    if isinstance(proxy, TruncQuantProxyFromInjector):
        return "truncation"
    return "clamp" if isinstance(proxy, ClampQuantProxyFromInjector) else "other"


def tensor_quantizer(proxy: QuantProxyFromInjector) -> nn.Module:
    """The module that quantizes tensors for an enabled proxy."""
    if isinstance(proxy, ActQuantProxyFromInjectorBase):
        quantizer: nn.Module = proxy.fused_activation_quant_proxy.tensor_quant
        return quantizer
    other: nn.Module = proxy.tensor_quant
    return other


def classify(proxy: QuantProxyFromInjector) -> Scheme | Refusal:
    """Say how a quantizer is searched, or why it is not.

    ``"learned"``: a plain integer quantizer with a free scale; it gets this package's learned
    clipping. A delay of quantization ends with that: until it was over, every width would seem equal.
    ``"native"``: an integer quantizer whose scale carries a meaning that must be kept (a power of
    two, a constant, a zero point, a special rounding, accumulator bounds); only its bit width becomes
    a setting.
    """
    kind = kind_of(proxy)
    if kind not in ("weight", "activation"):
        return Refusal(f"{kind} quantizers keep their width")
    quantizer = tensor_quantizer(proxy)
    reason = _refuse(proxy, quantizer)
    if reason is not None:
        return reason
    return "learned" if _is_plain(proxy, quantizer) else "native"


def _refuse(proxy: QuantProxyFromInjector, quantizer: nn.Module) -> Refusal | None:
    name = type(quantizer).__name__
    if "Float" in type(proxy).__name__:
        return Refusal(f"float (minifloat) quantizer {name}: its width is split into exponent and mantissa")
    if proxy.is_groupwise or "Groupwise" in type(proxy).__name__:
        return Refusal("group-wise scales are not supported")
    if isinstance(quantizer, (BinaryQuant, ClampedBinaryQuant)):
        return Refusal("binary quantizer: it has no other width")
    if isinstance(quantizer, TernaryQuant):
        return Refusal("ternary quantizer: it has no other width")
    width = getattr(quantizer, "msb_clamp_bit_width_impl", None)
    if not isinstance(width, (BitWidthConst, BitWidthStatefulConst, BitWidthParameter)):
        return Refusal(f"{name} has no bit width that can be replaced")
    return None


def _is_plain(proxy: QuantProxyFromInjector, quantizer: Any) -> bool:
    if isinstance(proxy, DynamicActQuantProxyFromInjector) or type(quantizer) is not RescalingIntQuant:
        return False
    integer = quantizer.int_quant
    return (
        type(integer) is IntQuant
        and isinstance(quantizer.zero_point_impl, ZeroZeroPoint)
        and isinstance(integer.float_to_int_impl, RoundSte)
        and type(quantizer.int_scaling_impl) is IntScaling
        and not isinstance(quantizer.scaling_impl, ConstScaling)
        and not any(
            isinstance(m, (PowerOfTwoRestrictValue, QuantRestrictValue))
            for m in quantizer.scaling_impl.modules()
        )
    )
