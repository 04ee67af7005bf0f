"""From a searchable model back to plain Brevitas, with nothing of this package inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import brevitas.config
import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.function_wrapper import RoundSte, TensorClamp
from brevitas.core.quant import BinaryQuant, IntQuant, RescalingIntQuant
from brevitas.core.restrict_val import FloatRestrictValue
from brevitas.core.scaling import SCALAR_SHAPE, IntScaling, ParameterScaling
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.nn.mixin.base import QuantRecurrentLayerMixin
from torch import nn

from gfb_brevitas.adapters.conversion import Site, convert, replace_width
from gfb_brevitas.adapters.copying import copied
from gfb_brevitas.adapters.eligibility import tensor_quantizer
from gfb_brevitas.adapters.ties import trace_and_tie
from gfb_brevitas.adapters.tracing import ExampleInputs
from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.quant import LearnedClippingQuantizer, normalize_weight


def frozen_copy(model: nn.Module, sites: Iterable[Site], allocation: Mapping[str, int]) -> nn.Module:
    """A plain Brevitas copy of a searchable model, at the widths of ``allocation``.

    Args:
        model: A model that :func:`~gfb_brevitas.adapters.conversion.convert` has converted.
        sites: Its searchable quantizers.
        allocation: Width per site name.
    """
    frozen = working_copy(model)
    sites = list(sites)
    shared = {site.leader for site in sites if site.leader != site.name}
    scalings: dict[str, nn.Module] = {}
    baked: set[int] = set()
    for site in sites:
        proxies: list[Any] = [frozen.get_submodule(name) for name in site.proxy_names]
        quantizer: Any = tensor_quantizer(proxies[0])
        bits = allocation[site.name]
        for proxy in proxies:
            del proxy.init_tensor_quant
        if isinstance(quantizer, LearnedClippingQuantizer):
            _bake_normalization(quantizer, proxies, baked)
            overrides = _plain_settings(quantizer, bits)
            if site.leader in shared:
                # One scale for several quantizers: they hold the same module, as Brevitas does it.
                scaling = ParameterScaling(scaling_init=overrides["scaling_init"])
                overrides["scaling_impl"] = scalings.setdefault(site.leader, scaling)
            _rebuild(proxies, overrides, site.device)
        else:
            _fix_width(proxies, quantizer, bits)
        if site.leader in shared or len(proxies) > 1:
            _keep_shared(proxies)
    for module in frozen.modules():
        if isinstance(module, QuantRecurrentLayerMixin):
            module._fast_cell = None  # holds the quantizers that were replaced
    return frozen


def apply_allocation(
    model: nn.Module, allocation: Mapping[str, int], example_inputs: ExampleInputs | None = None
) -> nn.Module:
    """A plain Brevitas copy of a user's model with the widths of an allocation.

    The copy has the structure of a frozen model, so it loads the state dict of one. Its scales start
    from those of ``model``.

    Example:
        >>> fresh = apply_allocation(make_model(), BitAllocation.load("allocation.json"))  # doctest: +SKIP
        >>> fresh.load_state_dict(torch.load("weights.pt", weights_only=True))  # doctest: +SKIP

    Args:
        model: A Brevitas model like the one that the allocation was found for.
        allocation: Width per quantizer name.
        example_inputs: One batch. Needed when different quantizers meet in an addition or concatenation
            of quant tensors (``tie_group`` in the profile tells): they share one scale in the frozen model,
            and without a forward pass there is no telling that they meet.

    Raises:
        AllocationError: If the allocation does not name the model's quantizers, or a width is below
            what a quantizer can take.
        UntraceableModelError: If the model fails on ``example_inputs``.
    """
    checked = BitAllocation(allocation)
    converted = working_copy(model)
    conversion = convert(converted)
    checked.require_names(conversion.sites)
    for site in conversion.sites.values():
        site.require_width(checked[site.name])
    if example_inputs is not None:
        trace_and_tie(converted, example_inputs, conversion)
    return frozen_copy(converted, conversion.sites.values(), checked)


def working_copy(model: nn.Module) -> nn.Module:
    """A copy of a Brevitas model whose quantizers can be replaced.

    Raises:
        ConfigurationError: If Brevitas compiles its quantizers, which then cannot be replaced, or the model
            cannot be copied.
    """
    if brevitas.config.JIT_ENABLED:
        raise ConfigurationError(
            "Bit widths cannot be changed in compiled quantizers, and Brevitas was imported with "
            "BREVITAS_JIT=1. Start Python with BREVITAS_JIT=0."
        )
    return copied(model)


def _plain_settings(quantizer: LearnedClippingQuantizer, bits: int) -> dict[str, Any]:
    integers = quantizer.integers
    bipolar = integers.is_bipolar(bits)
    clipping = quantizer.clipping(bits).detach().clone()
    return {
        "tensor_quant": BinaryQuant if bipolar else RescalingIntQuant,
        "int_quant": IntQuant,
        "scaling_impl": ParameterScaling,
        "scaling_init": clipping,
        "scaling_shape": SCALAR_SHAPE if clipping.dim() == 0 else tuple(clipping.shape),
        "scaling_min_val": None,
        "dtype": clipping.dtype,
        "restrict_scaling_impl": FloatRestrictValue,
        "restrict_threshold_impl": FloatRestrictValue,
        "restrict_scale_threshold_impl": FloatRestrictValue,
        "int_scaling_impl": IntScaling(
            signed=integers.scale_signed, narrow_range=integers.scale_narrow_range and bits > 1
        ),
        "zero_point_impl": ZeroZeroPoint,
        "bit_width_impl": BitWidthConst(bits),  # in float32: half precision does not hold 2^16 - 1
        "bit_width": bits,
        "float_to_int_impl": RoundSte,
        "tensor_clamp_impl": TensorClamp,
        "signed": integers.signed,
        "narrow_range": bipolar or (integers.narrow_range and bits > 1),
        "quant_delay_steps": 0,
    }


def _rebuild(proxies: list[Any], overrides: dict[str, Any], device: torch.device) -> None:
    for proxy in proxies:
        training = proxy.training
        proxy.quant_injector = proxy.quant_injector.let(**overrides)
        proxy.init_tensor_quant()
        proxy.to(device).train(training)
        overrides = {**overrides, "tensor_quant": tensor_quantizer(proxies[0])}


def _fix_width(proxies: list[Any], quantizer: Any, bits: int) -> None:
    replace_width(quantizer, BitWidthConst(bits).to(quantizer.msb_clamp_bit_width_impl._widths.device))
    for proxy in proxies:
        proxy.quant_injector = proxy.quant_injector.let(bit_width_impl=BitWidthConst, bit_width=bits)


def _keep_shared(proxies: list[Any]) -> None:
    # Brevitas makes quantizers anew when it loads a state dict. What is shared would come apart then; or,
    # in a copy, be that of the original. Nothing has to be made anew: scales are in the state dict.
    for proxy in proxies:
        proxy.init_tensor_quant = dict  # takes what it is called with and does nothing


@torch.no_grad()
def _bake_normalization(quantizer: LearnedClippingQuantizer, proxies: list[Any], baked: set[int]) -> None:
    if not quantizer.normalize:
        return
    for weight in (layer.weight for proxy in proxies for layer in proxy.tracked_module_list):
        if id(weight) not in baked:  # a weight may be that of several layers
            weight.copy_(normalize_weight(weight))
            baked.add(id(weight))
