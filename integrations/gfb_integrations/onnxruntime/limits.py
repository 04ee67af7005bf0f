"""Which quantizers ONNX's QuantizeLinear, Clip and DequantizeLinear cannot carry.

QuantizeLinear writes 8-bit integers, rounded to nearest with ties to even. Brevitas reaches narrower widths
with a Clip behind it, and stores weights and biases as integers that were rounded beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from gfb_brevitas.adapters.eligibility import kind_of, named_proxies
from gfb_integrations.qonnx._quiet import importing_exporters

LEAST_BITS, MOST_BITS = 2, 8
"""Widths that Brevitas writes; a bias may be wider."""


@dataclass(frozen=True, kw_only=True)
class QcdqLimit:
    """A module that QCDQ cannot carry.

    Attributes:
        name: Dotted path of the quantizer, or of a recurrent layer.
        kind: The quantizer's role, e.g. ``"weight"``, or ``"recurrent layer"``.
        bits: Its bit width; ``None`` when it has none.
        reason: Why it cannot be carried, and what can.
    """

    name: str
    kind: str
    bits: float | None
    reason: str

    def __str__(self) -> str:
        width = "" if self.bits is None else f", {self.bits:g} bits"
        return f"{self.name} ({self.kind}{width}): {self.reason}"


def qcdq_limits(model: nn.Module) -> tuple[QcdqLimit, ...]:
    """All quantizers that :func:`~gfb_integrations.onnxruntime.export_qcdq` would refuse.

    Example:
        >>> import brevitas.nn as qnn
        >>> model = nn.Sequential(qnn.QuantIdentity(bit_width=10), qnn.QuantLinear(2, 2, bias=False))
        >>> print(*qcdq_limits(model))
        0.act_quant (activation, 10 bits): QuantizeLinear writes at most 8 bits.

    Args:
        model: A plain Brevitas model.

    Returns:
        One entry per quantizer; nothing when the whole model can be carried.
    """
    return (*_recurrent_layers(model), *_quantizers(model))


def _recurrent_layers(model: nn.Module) -> Iterator[QcdqLimit]:
    from brevitas.nn.mixin.base import QuantRecurrentLayerMixin

    for path, module in model.named_modules():
        if isinstance(module, QuantRecurrentLayerMixin):
            yield QcdqLimit(
                name=path,
                kind="recurrent layer",
                bits=None,
                reason="quantized recurrent cells have no operator. Write the cell with QuantLinear layers.",
            )


def _quantizers(model: nn.Module) -> Iterator[QcdqLimit]:
    for name, proxy in named_proxies(model):
        if not proxy.requires_export_handler:
            continue
        kind = kind_of(proxy)
        bits = None if kind == "bias" else _bits(proxy)  # that of a bias needs the layer's input
        reason = _type_reason(proxy, kind) or _width_reason(kind, bits) or _rounding_reason(proxy, kind)
        if reason is not None:
            yield QcdqLimit(name=name, kind=kind, bits=bits, reason=reason)


def _bits(proxy: Any) -> float | None:
    try:
        bits = proxy.bit_width()
    except (AttributeError, NotImplementedError):
        return None
    except AssertionError:  # weights that are bounded by their layer's input
        bits = proxy.tensor_quant.msb_clamp_bit_width_impl()
    return None if bits is None else float(bits)


def _type_reason(proxy: Any, kind: str) -> str | None:
    with importing_exporters():
        from brevitas.export.onnx.standard.qcdq.manager import StdQCDQONNXManager
    from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector

    if isinstance(proxy, DynamicActQuantProxyFromInjector):
        return "its scale is computed anew for every input. Give it a static scale."
    if getattr(proxy, "is_groupwise", False):
        return "it has one scale per group of values. Use one per tensor or per channel."
    if StdQCDQONNXManager.handler_from_module(proxy, no_inheritance=True) is None:
        return f"a {type(proxy).__name__} has no counterpart. Use an integer quantizer."
    if kind == "bias" and not proxy.is_signed:
        return "a bias is stored as a signed integer."
    return None


def _width_reason(kind: str, bits: float | None) -> str | None:
    if kind == "bias":
        return None
    if bits is None or bits != round(bits):
        return "its values are not integers of a whole number of bits. Use an integer quantizer."
    if bits < LEAST_BITS:
        return f"widths begin at {LEAST_BITS} bits."
    if bits > MOST_BITS:
        return f"QuantizeLinear writes at most {MOST_BITS} bits."
    return None


def _rounding_reason(proxy: Any, kind: str) -> str | None:
    if kind == "weight":
        return None  # stored as integers
    rounding = str(proxy.rounding_mode).upper()
    if rounding == "ROUND":
        return None
    return f"QuantizeLinear rounds to nearest, and this quantizer rounds as {rounding!r}."
