"""Putting searchable quantizers into a Brevitas model, in place.

Only the tensor quantizer inside a Brevitas proxy is replaced; layers, proxies and quant tensors stay
Brevitas' own, so everything that they do (shared quantizers, bias scales, recurrent cells) goes on
working.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from brevitas.core.scaling import IntScaling, ScalingPerOutputType
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjectorBase
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase, FusedActivationQuantProxy
from torch import Tensor, nn

from gfb_brevitas.adapters.eligibility import Refusal, classify, kind_of, named_proxies, tensor_quantizer
from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.errors import AllocationError
from gfb_brevitas.profile import QuantizerKind, RefusedQuantizer
from gfb_brevitas.quant import (
    Clipping,
    ClippingKind,
    IntegerFormat,
    LearnedClippingQuantizer,
    RuntimeBitWidth,
    make_clipping,
)

NATIVE_MIN_BITS = 2


@dataclass(kw_only=True)
class Site:
    """One searchable quantizer in a model.

    Attributes:
        name: Name of its first proxy; the quantizer's name everywhere.
        proxy_names: Names of all proxies that hold the same tensor quantizer.
        kind: Weight or activation.
        width: Where the bit width in force is kept.
        quantizer: The learned-clipping quantizer, or Brevitas' own with its width replaced.
        initial_bits: Width in the user's model.
        integers: The integer range.
        channel_dim: Dimension of the scale's channels; ``None`` with one scale per tensor.
        leader: Name of the first site that shares the scale; the site's own name if none does.
    """

    name: str
    proxy_names: list[str]
    kind: QuantizerKind
    width: RuntimeBitWidth
    quantizer: nn.Module
    initial_bits: int
    integers: IntegerFormat
    channel_dim: int | None
    leader: str

    @property
    def learned(self) -> LearnedClippingQuantizer | None:
        """The learned-clipping quantizer, if the site has one."""
        return self.quantizer if isinstance(self.quantizer, LearnedClippingQuantizer) else None

    @property
    def min_bits(self) -> int:
        """Smallest width the quantizer can take."""
        return NATIVE_MIN_BITS if self.learned is None else 1

    @property
    def device(self) -> torch.device:
        """Where the quantizer is."""
        device: torch.device = self.width().device
        return device

    def tracked_layers(self, model: nn.Module) -> list[Any]:
        """The layers of ``model`` whose weights the quantizer quantizes, each once."""
        proxies: list[Any] = [model.get_submodule(name) for name in self.proxy_names]
        return list({id(layer): layer for proxy in proxies for layer in proxy.tracked_module_list}.values())

    def require_width(self, bits: int) -> None:
        """Check that the quantizer can take a width.

        Raises:
            AllocationError: If it cannot.
        """
        if bits < self.min_bits:
            raise AllocationError(
                f"{self.name!r} keeps Brevitas' own scale and takes no fewer than {self.min_bits} bits; "
                f"the allocation says {bits}."
            )


@dataclass
class Conversion:
    """The outcome of :func:`convert`: what is searchable and what is not."""

    sites: dict[str, Site] = field(default_factory=dict)
    refused: list[RefusedQuantizer] = field(default_factory=list)


def convert(
    model: nn.Module,
    *,
    clipping: ClippingKind = "linear",
    weight_normalization: bool = False,
    max_bits: int = MAX_BITS,
) -> Conversion:
    """Replace every searchable tensor quantizer of ``model``, in place.

    The model computes the same as before until widths or clipping values change (the learned
    clipping starts at the threshold of the scale that the quantizer had).

    Args:
        model: A Brevitas model.
        clipping: Form of a(b).
        weight_normalization: Normalize weights before quantization.
        max_bits: Largest width that will be asked for.
    """
    conversion = Conversion()
    by_quantizer: dict[int, Site] = {}
    by_scaling: dict[int, Site] = {}
    keep_alive: list[nn.Module] = []  # ids of modules that are replaced must not be reused
    for name, proxy in list(named_proxies(model)):
        native: Any = tensor_quantizer(proxy)
        known = by_quantizer.get(id(native))
        if known is not None:
            known.proxy_names.append(name)
            _install(proxy, known.quantizer)
            continue
        verdict = classify(proxy)
        if isinstance(verdict, Refusal):
            conversion.refused.append(RefusedQuantizer(name=name, kind=kind_of(proxy), reason=str(verdict)))
            continue
        keep_alive.append(native)
        site = _make_site(name, proxy, native, by_scaling.get(id(native.scaling_impl)))
        if verdict == "learned":
            normalize = weight_normalization and site.kind == "weight"
            shared = conversion.sites[site.leader].learned if site.leader != name else None
            _learn_clipping(site, proxy, clipping, max_bits, normalize, shared)
        by_quantizer[id(native)] = site
        by_scaling.setdefault(id(native.scaling_impl), site)
        conversion.sites[name] = site
        _install(proxy, site.quantizer)
    for site in conversion.sites.values():
        _take_over_relu(site, [model.get_submodule(name) for name in site.proxy_names])
    return conversion


def share_scale(first: Site, second: Site) -> None:
    """Make ``second`` take the scale of ``first``, as additions of quant tensors need it."""
    second.leader = first.leader
    one, other = first.learned, second.learned
    if one is not None and other is not None:
        other.clipping = one.clipping
        other.integers = second.integers = replace(
            second.integers,
            scale_signed=first.integers.scale_signed,
            scale_narrow_range=first.integers.scale_narrow_range,
        )


def _make_site(name: str, proxy: QuantProxyFromInjector, native: Any, sharing: Site | None) -> Site:
    wanted = native.msb_clamp_bit_width_impl().detach()
    initial_bits = round(float(wanted))
    width = RuntimeBitWidth(initial_bits).to(wanted.device)
    replace_width(native, width)
    return Site(
        name=name,
        proxy_names=[name],
        kind=cast(QuantizerKind, kind_of(proxy)),
        width=width,
        quantizer=native,
        initial_bits=initial_bits,
        integers=_integer_format(proxy, native),
        channel_dim=_channel_dim(proxy),
        leader=name if sharing is None else sharing.leader,
    )


def _learn_clipping(
    site: Site,
    proxy: QuantProxyFromInjector,
    kind: ClippingKind,
    max_bits: int,
    normalize: bool,
    shared: LearnedClippingQuantizer | None,
) -> None:
    native: Any = site.quantizer
    scale, bits = _initial_scale(proxy, native), site.initial_bits
    start = scale * site.integers.threshold(bits)
    largest = max(max_bits, bits)
    form: Clipping = make_clipping(kind, start, largest) if shared is None else shared.clipping
    quantizer = LearnedClippingQuantizer(form, site.integers, bits, normalize=normalize)
    site.quantizer = quantizer.to(scale.device).train(proxy.training)
    site.width = quantizer.width


@torch.no_grad()
def _initial_scale(proxy: Any, native: Any) -> Tensor:
    """The scale in evaluation mode; a scalar or one per channel."""
    training = native.training
    native.eval()
    try:
        is_weight = isinstance(proxy, WeightQuantProxyFromInjectorBase)
        probe = proxy.tracked_module_list[0].weight if is_weight else proxy._zero_hw_sentinel()
        threshold = native.int_scaling_impl(native.msb_clamp_bit_width_impl())
        scale: Tensor = native.scaling_impl(probe, threshold)
    finally:
        native.train(training)
    return scale.detach().clone()


def _channel_dim(proxy: Any) -> int | None:
    injector = proxy.quant_injector
    if getattr(injector, "scaling_per_output", None) != ScalingPerOutputType.CHANNEL:
        return None
    if isinstance(proxy, WeightQuantProxyFromInjectorBase):
        return int(proxy.tracked_module_list[0].output_channel_dim)
    return next((d for d, n in enumerate(injector.per_channel_broadcastable_shape) if n > 1), 1)


def _integer_format(proxy: Any, native: Any) -> IntegerFormat:
    signed, narrow = bool(proxy.is_signed), bool(proxy.is_narrow_range)
    scaling = native.int_scaling_impl
    if type(scaling) is IntScaling and scaling.signed is not None:
        return IntegerFormat(
            signed=signed,
            narrow_range=narrow,
            scale_signed=bool(scaling.signed),
            scale_narrow_range=bool(scaling.narrow_range),
        )
    return IntegerFormat.plain(signed=signed, narrow_range=narrow)


def replace_width(native: nn.Module, width: nn.Module) -> None:
    """Put ``width`` wherever a Brevitas quantizer holds its bit width module."""
    old = native.msb_clamp_bit_width_impl
    for module in list(native.modules()):
        for child_name, child in list(module.named_children()):
            if child is old:
                setattr(module, child_name, width)


def _install(proxy: Any, quantizer: nn.Module) -> None:
    if isinstance(proxy, ActQuantProxyFromInjectorBase):
        proxy.fused_activation_quant_proxy.tensor_quant = quantizer
    else:
        proxy.tensor_quant = quantizer
    # Brevitas rebuilds quantizers when it loads a state dict or tracks another module; this one stays.
    proxy.init_tensor_quant = _keep_quantizer


class _RectifiedByQuantizer(FusedActivationQuantProxy):
    """Stands where Brevitas applies a ReLU and then quantizes; the ReLU is for when quantization is off."""

    def forward(self, x: Tensor) -> Any:
        return self.tensor_quant(x)


def _take_over_relu(site: Site, proxies: list[Any]) -> None:
    # Clamping to an unsigned range rectifies. The ReLU would be one more pass over memory, there and back.
    fused = [getattr(proxy, "fused_activation_quant_proxy", None) for proxy in proxies]
    if site.learned is None or site.integers.signed or not all(map(_is_after_relu, fused)):
        return
    site.learned.rectify = True
    for proxy, old in zip(proxies, fused, strict=True):
        assert old is not None
        new = _RectifiedByQuantizer(old.activation_impl, old.tensor_quant)
        proxy.fused_activation_quant_proxy = new.train(old.training)


def _is_after_relu(fused: Any) -> bool:
    activation = getattr(fused, "activation_impl", None)
    return type(fused) is FusedActivationQuantProxy and type(activation) is nn.ReLU and not activation.inplace


def _keep_quantizer(*args: object, **kwargs: object) -> None:
    """Stands in for a proxy's ``init_tensor_quant`` while its quantizer is searchable."""
