"""What every layer of a model hands on, recorded during one forward pass.

The same recording runs twice: while a model is traced for export, where it says which node of the graph
computes which layer's output, and while an exported graph is verified, where it holds the values that
those nodes have to compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.quant_tensor import QuantTensor
from torch import Tensor, nn


@dataclass(frozen=True, order=True)
class LayerOutput:
    """One tensor that a layer returned.

    Attributes:
        layer: Dotted path of the module, e.g. ``"block.0.weight_quant"``.
        call: How many times the module had returned before, in the same forward pass.
        index: Position among the tensors that the call returned.
    """

    layer: str
    call: int = 0
    index: int = 0


@dataclass(frozen=True)
class Recorded:
    """A layer's output with its value, and with what the layer computed it from.

    For an activation quantizer with a function of its own (a ReLU), ``input`` is what that function
    returned: the values that were rounded. ``None`` where the input is not one tensor.
    """

    output: LayerOutput
    value: Tensor
    input: Tensor | None


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors that a module returned, in order; a quantized tensor counts as its value."""
    if isinstance(value, QuantTensor):
        return [value.value]
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


@contextmanager
def recording(
    model: nn.Module, substitutes: Mapping[LayerOutput, Tensor] | None = None
) -> Iterator[list[Recorded]]:
    """Record the floating-point outputs of all layers of ``model`` while the block runs.

    Copies are recorded: a later in-place operation does not reach them.

    Args:
        model: The model whose layers are recorded.
        substitutes: Values that layers hand on in place of what they computed (which is recorded
            nevertheless).
    """
    handed_on = substitutes or {}
    records: list[Recorded] = []
    calls: Counter[str] = Counter()
    activated: dict[str, Any] = {}

    def record(layer: str, module: nn.Module, inputs: tuple[Any, ...], returned: Any) -> Any:
        call = calls[layer]
        calls[layer] += 1
        if isinstance(module, QuantProxyFromInjector) and inputs and returned is inputs[0]:
            return None  # switched off
        taken = tensors_in(activated.pop(layer, inputs[0] if inputs else None))
        entered = taken[0].detach() if len(taken) == 1 else None
        for index, tensor in enumerate(tensors_in(returned)):
            if tensor.is_floating_point():
                records.append(Recorded(LayerOutput(layer, call, index), tensor.clone(), entered))
        substitute = handed_on.get(LayerOutput(layer, call))
        return None if substitute is None else _with_value(returned, substitute)

    with ExitStack() as hooks:
        for layer, module in _layers(model):
            handle = module.register_forward_hook(
                lambda module, inputs, returned, layer=layer: record(layer, module, inputs, returned)
            )
            hooks.callback(handle.remove)
            function = _activation_function(module)
            if function is not None:
                handle = function.register_forward_hook(
                    lambda *call, layer=layer: activated.update({layer: call[-1]})
                )
                hooks.callback(handle.remove)
        yield records


def _with_value(returned: Any, value: Tensor) -> Any:
    return returned.set(value=value) if isinstance(returned, QuantTensor) else value


def _activation_function(module: nn.Module) -> nn.Module | None:
    """What an activation quantizer applies before it rounds."""
    fused = getattr(module, "fused_activation_quant_proxy", None)
    return getattr(fused, "activation_impl", None)


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules but the model itself and what lies inside Brevitas' quantizer proxies."""
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if not path or path.startswith(inside) or isinstance(module, torch.jit.ScriptModule):
            continue
        if isinstance(module, QuantProxyFromInjector):
            inside += (path + ".",)
        yield path, module
