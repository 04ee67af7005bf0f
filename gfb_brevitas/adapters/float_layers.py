"""Which layers multiply in floating point, or keep weights in it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import brevitas.nn as qnn
from brevitas.nn.mixin.parameter import QuantWeightMixin
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjectorBase
from torch import nn

from gfb_brevitas.adapters.eligibility import named_proxies
from gfb_brevitas.adapters.float_tracing import WEIGHT_LAYERS
from gfb_brevitas.profile import FLOAT_BITS, FloatLayer, Operand, Product


def find_float_layers(model: nn.Module, products: Sequence[Product]) -> tuple[FloatLayer, ...]:
    """The layers that multiply in floating point, in the order of the forward pass, and unquantized tables.

    Args:
        model: A Brevitas model.
        products: The products of its forward pass.
    """
    weights = {name: _weights(module) for name, module in float_weight_layers(model)}
    macs: dict[str, int] = {}
    sides: dict[str, set[str]] = {name: {"weights"} for name in weights}
    for product in products:
        found = {
            side
            for side, operand in (("inputs", product.left), ("weights", product.right))
            if _is_float(operand)
        }
        if found:
            macs[product.layer] = macs.get(product.layer, 0) + product.macs
            sides.setdefault(product.layer, set()).update(found)
    for name in sides.keys() - weights.keys():
        weights[name] = _weights(model.get_submodule(name)) if "weights" in sides[name] else 0
    all_macs = sum(product.macs for product in products)
    all_weights = _quantized_weights(model) + sum(weights.values())
    return tuple(
        FloatLayer(
            name=name,
            kind=type(model.get_submodule(name)).__name__,
            operands=_operands(sides[name]),
            reason=_reason(model.get_submodule(name), sides[name], weights[name]),
            macs=macs.get(name, 0),
            weights=weights[name],
            macs_share=macs.get(name, 0) / max(all_macs, 1),
            weights_share=weights[name] / max(all_weights, 1),
        )
        for name in dict.fromkeys((*macs, *sides))
    )


def float_weight_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers of PyTorch, and subclasses of them, whose weights no quantizer rounds."""
    return [(name, module) for name, module in model.named_modules() if _keeps_float_weights(module)]


def _keeps_float_weights(module: nn.Module) -> bool:
    if isinstance(module, QuantWeightMixin):
        return not module.weight_quant.is_quant_enabled
    return isinstance(module, WEIGHT_LAYERS) and not type(module).__module__.startswith("brevitas.")


def why_float(module: nn.Module) -> str:
    """Why a layer with weights has no weight quantizer."""
    kind = type(module).__name__
    if isinstance(module, QuantWeightMixin):
        return "its weight_quant is off"
    if not type(module).__module__.startswith("torch.nn"):
        base = next((c.__name__ for c in type(module).__mro__ if c in WEIGHT_LAYERS), None)
        if base is not None:
            return f"{kind} is a subclass of {base} with a forward of its own, and has no weight quantizer"
    if hasattr(qnn, f"Quant{kind}"):
        return f"it is PyTorch's {kind}, not Brevitas' Quant{kind}"
    return f"Brevitas has no quantized {kind}"


def _reason(module: nn.Module, sides: set[str], weights: int) -> str:
    if sides == {"inputs"}:
        return "it reads values that no quantizer rounded"
    if isinstance(module, (*WEIGHT_LAYERS, QuantWeightMixin)):
        return why_float(module)
    if weights:
        return f"{type(module).__name__} multiplies by a parameter that no quantizer rounded"
    return "it multiplies activations that no quantizer rounded"


def _operands(sides: set[str]) -> Literal["weights", "inputs", "both"]:
    if len(sides) == 2:
        return "both"
    return "weights" if "weights" in sides else "inputs"


def _is_float(operand: Operand) -> bool:
    return not operand.quantizers and operand.constant_bits >= FLOAT_BITS


def _weights(module: nn.Module) -> int:
    """Elements of a module's own matrices and filters; vectors are biases and scales."""
    return sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)


def _quantized_weights(model: nn.Module) -> int:
    sizes: dict[int, int] = {}
    for _, proxy in named_proxies(model):
        if isinstance(proxy, WeightQuantProxyFromInjectorBase):
            layers: Any = proxy.tracked_module_list
            sizes.update({id(layer.weight): layer.weight.numel() for layer in layers})
    return sum(sizes.values())
