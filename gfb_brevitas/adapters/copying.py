"""Copies of Brevitas models: the one place that copies a module.

``copy.deepcopy`` alone is not enough. It refuses tensors that were computed (pruned weights, weight
normalization, what a forward pass kept), and it leaves what Brevitas keeps in injector classes and in
closures pointing at the original, where quantizers that make their scale at first use look for themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import CellType, FunctionType, ModuleType
from typing import Any

from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from gfb_brevitas.errors import ConfigurationError

_RECOMPUTED_BY = (BasePruningMethod, WeightNorm, SpectralNorm)


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with ``model``.

    Tensors that were computed become plain values; hooks that compute them go on doing so.

    Raises:
        ConfigurationError: If something in the model cannot be copied; it is named.
    """
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in _computed_tensors(model)}
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:
        raise ConfigurationError(_cannot_be_copied(model, error)) from error
    for module in made.modules():
        _point_closures_at_copies(module, memo)
        if isinstance(module, QuantProxyFromInjector):
            module.quant_injector = module.quant_injector.let(proxy_module=module)
            if module.tracked_module_list:
                module.update_tracked_modules()
    return made


def with_plain_weights(model: nn.Module) -> nn.Module:
    """Replace parametrizations and hooks that compute weights by the weights, in place; returns ``model``."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _end_parametrization(module)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _RECOMPUTED_BY):
                hook.remove(module)
                del module._forward_pre_hooks[key]
    return model


def _end_parametrization(module: Any) -> None:
    # PyTorch's own function takes the property from the class, which copies share with the original.
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=value.is_floating_point()))


def _computed_tensors(model: nn.Module) -> Iterator[Tensor]:
    seen: set[int] = set()
    for module in model.modules():
        for value in vars(module).values():
            yield from _computed_in(value, seen)


def _computed_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Tensors that were computed, in a value and in what it holds."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
        return
    if isinstance(value, nn.Module | type | ModuleType | FunctionType | str | bytes) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        held: Any = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        held = value
    else:
        held = getattr(value, "__dict__", {}).values()
    for item in list(held):
        yield from _computed_in(item, seen)


def _point_closures_at_copies(module: nn.Module, memo: dict[int, Any]) -> None:
    for name, value in list(vars(module).items()):
        if not isinstance(value, FunctionType) or not value.__closure__:
            continue
        cells = [CellType(_copy_of(cell, memo)) for cell in value.__closure__]
        pairs = zip(cells, value.__closure__, strict=True)
        if any(new.cell_contents is not old.cell_contents for new, old in pairs):
            made = FunctionType(
                value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells)
            )
            made.__kwdefaults__ = value.__kwdefaults__
            vars(module)[name] = made


def _copy_of(cell: CellType, memo: dict[int, Any]) -> Any:
    held = cell.cell_contents
    return memo.get(id(held), held) if isinstance(held, nn.Module) else held


def _cannot_be_copied(model: nn.Module, error: Exception) -> str:
    what = f"{type(model).__name__} cannot be copied, and is to be left as it is ({error})"
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                where = f"the module {path!r}" if path else "the model itself"
                return (
                    f"{what}. The cause is the attribute {name!r} of {where}, a {type(value).__name__}: "
                    "delete it, or give its class a __deepcopy__."
                )
    return f"{what}. Remove what copy.deepcopy refuses."
