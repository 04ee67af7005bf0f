"""Filling a model profile from a conversion and a trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjectorBase
from torch import nn

from gfb_brevitas.adapters.conversion import Conversion, Site
from gfb_brevitas.adapters.eligibility import named_proxies
from gfb_brevitas.adapters.float_layers import find_float_layers
from gfb_brevitas.adapters.product_recorder import Trace
from gfb_brevitas.layer_graph import LayerGraph
from gfb_brevitas.profile import ModelProfile, QuantizerInfo


def make_profile(
    model: nn.Module,
    conversion: Conversion,
    trace: Trace,
    layers: LayerGraph,
    batch_size: int,
    bits: tuple[int, int],
) -> ModelProfile:
    """Describe a converted model.

    Quantizers come in the order of the forward pass; those that it never reached come last and keep
    the width they have.

    Args:
        model: The converted model.
        conversion: Its searchable and refused quantizers.
        trace: What one forward pass showed.
        layers: Its operations.
        batch_size: Samples in that pass.
        bits: Smallest and largest width of the search.
    """
    products = trace.profile_products(batch_size)
    macs: dict[str, int] = {}
    feeds: dict[str, list[str]] = {}
    for product in products:
        for name in (*product.left.quantizers, *product.right.quantizers):
            macs[name] = macs.get(name, 0) + product.macs
            if product.layer not in feeds.setdefault(name, []):
                feeds[name].append(product.layer)
    unreached = [name for name in conversion.sites if name not in trace.elements]
    infos = tuple(
        _describe(
            model, conversion.sites[name], trace, batch_size, bits, macs.get(name, 0), feeds.get(name, [])
        )
        for name in (*trace.order, *unreached)
    )
    return ModelProfile(
        quantizers=infos,
        products=products,
        unknown_operators=tuple(trace.unknown.values()),
        float_layers=find_float_layers(model, products),
        refused=tuple(conversion.refused),
        constant_weight_bits=_unsearched_weight_bits(model, conversion.sites),
        layers=layers,
    )


def _describe(
    model: nn.Module,
    site: Site,
    trace: Trace,
    batch_size: int,
    bits: tuple[int, int],
    macs: int,
    feeds: list[str],
) -> QuantizerInfo:
    reached = site.name in trace.elements
    if site.kind == "weight":
        weights = [layer.weight for layer in site.tracked_layers(model)]
        sizes = list({id(weight): weight.numel() for weight in weights}.values())
        elements, largest = sum(sizes), max(sizes)
    else:
        elements = round(trace.elements.get(site.name, 0) / batch_size)
        largest = round(trace.largest_call.get(site.name, 0) / batch_size)
    low, high = (max(bits[0], site.min_bits), max(bits[1], site.min_bits))
    return QuantizerInfo(
        name=site.name,
        kind=site.kind,
        elements=elements,
        largest_call_elements=largest,
        macs=macs,
        signed=site.integers.signed,
        narrow_range=site.integers.narrow_range,
        granularity="tensor" if site.channel_dim is None else "channel",
        min_bits=low if reached else site.initial_bits,
        max_bits=high if reached else site.initial_bits,
        initial_bits=site.initial_bits,
        tie_group=site.leader,
        scaling="native" if site.learned is None else "learned",
        feeds=tuple(feeds),
        reached=reached,
        layer=layer_in_words(model.get_submodule(site.name.rpartition(".")[0])),
    )


def layer_in_words(layer: nn.Module) -> str:
    """Kind and shape of a layer for people, e.g. ``"Conv2d 1->8 3x3"``."""
    kind = type(layer).__name__.removeprefix("Quant")
    for names in (("in_channels", "out_channels"), ("in_features", "out_features")):
        if all(isinstance(getattr(layer, name, None), int) for name in names):
            kind += f" {getattr(layer, names[0])}->{getattr(layer, names[1])}"
    kernel = getattr(layer, "kernel_size", None)
    return f"{kind} {'x'.join(map(str, kernel))}" if isinstance(kernel, tuple) else kind


def _unsearched_weight_bits(model: nn.Module, sites: Mapping[str, Site]) -> float:
    searched = {name for site in sites.values() for name in site.proxy_names}
    total = 0.0
    for name, proxy in named_proxies(model):
        if name in searched or not isinstance(proxy, WeightQuantProxyFromInjectorBase):
            continue
        width = _constant_width(proxy)
        total += width * sum(layer.weight.numel() for layer in proxy.tracked_module_list)
    return total


def _constant_width(proxy: Any) -> float:
    quantized = proxy.tracked_module_list[0].quant_weight()
    width = getattr(quantized, "bit_width", None)
    if width is None:  # minifloat: sign, exponent and mantissa
        return 1.0 + float(quantized.exponent_bit_width) + float(quantized.mantissa_bit_width)
    return float(width)
