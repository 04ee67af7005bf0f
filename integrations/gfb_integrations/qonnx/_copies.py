"""Copies to work on, so that a model leaves an export as it entered it."""

from __future__ import annotations

import torch
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import Tensor, nn

from gfb_brevitas.adapters.copying import copied, with_plain_weights
from gfb_brevitas.errors import ConfigurationError, ExportError


def working_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` on the CPU, in evaluation mode, with plain weights where some are computed.

    Raises:
        ExportError: If the model cannot be copied, does not compute in 32-bit floating point, or has
            quantizers that were compiled.
    """
    if _is_scripted(model):
        raise ExportError(
            "Brevitas can neither trace nor inspect quantizers that TorchScript compiled (BREVITAS_JIT=1). "
            "Save the model's state, and load and export it in a process without that variable."
        )
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ExportError(
                f"QONNX computes in float32, and the parameter {name!r} is {parameter.dtype}. "
                "Convert the model first: model.float()."
            )
    try:
        return with_plain_weights(copied(model).cpu().eval())
    except ConfigurationError as error:
        raise ExportError(str(error)) from error


def _is_scripted(model: nn.Module) -> bool:
    proxies = (module for module in model.modules() if isinstance(module, QuantProxyFromInjector))
    return any(isinstance(inner, torch.jit.ScriptModule) for proxy in proxies for inner in proxy.modules())


def as_inputs(value: Tensor | tuple[Tensor, ...] | list[Tensor], argument: str) -> tuple[Tensor, ...]:
    """The model's positional inputs, on the CPU.

    Raises:
        ConfigurationError: If ``value`` is neither a tensor nor a sequence of tensors.
    """
    tensors = (value,) if isinstance(value, Tensor) else value
    if (
        not isinstance(tensors, (tuple, list))
        or not tensors
        or not all(isinstance(tensor, Tensor) for tensor in tensors)
    ):
        raise ConfigurationError(
            f"`{argument}` must be a tensor, or a tuple with one tensor per input of the model; "
            f"got {type(value).__name__}."
        )
    return tuple(tensor.detach().cpu() for tensor in tensors)
