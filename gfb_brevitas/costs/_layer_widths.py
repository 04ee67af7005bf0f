"""Which width pairs each layer of a model can be run at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gfb_brevitas.profile import ModelProfile, Operand

WidthPair = tuple[int, int]
"""Width of the right operand (weights, for a layer) and of the left one (activations), in bits."""

_Ranges = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class LayerOperands:
    """The operands of all products of one layer."""

    right: tuple[Operand, ...]
    left: tuple[Operand, ...]


def layer_operands(profile: ModelProfile) -> dict[str, LayerOperands]:
    """All layers with products, in the order of the forward pass."""
    layers: dict[str, LayerOperands] = {}
    for product in profile.products:
        seen = layers.get(product.layer, LayerOperands((), ()))
        layers[product.layer] = LayerOperands((*seen.right, product.right), (*seen.left, product.left))
    return layers


def reachable_pairs(profile: ModelProfile, operands: LayerOperands) -> list[WidthPair]:
    """The width pairs a layer can have, given the quantizers' ranges and ties."""
    right, left = _ranges(profile, operands.right), _ranges(profile, operands.left)
    return [
        (weight_bits, activation_bits)
        for weight_bits in _span(right)
        for activation_bits in _span(left)
        if _is_reachable(right, left, weight_bits, activation_bits)
    ]


def _ranges(profile: ModelProfile, operands: tuple[Operand, ...]) -> _Ranges:
    """The range of every group of tied quantizers (and of every constant) among ``operands``."""
    found: _Ranges = {}
    for operand in operands:
        for name in operand.quantizers:
            info = profile.quantizers[profile.column(name)]
            low, high = found.get(info.tie_group, (info.min_bits, info.max_bits))
            found[info.tie_group] = max(low, info.min_bits), min(high, info.max_bits)
        constant = operand.least_bits if operand.quantizers else operand.constant_bits
        if constant:
            width = math.ceil(constant)
            found[f"constant {width}"] = width, width
    return found


def _span(ranges: _Ranges) -> Iterator[int]:
    lows, highs = zip(*ranges.values(), strict=True)
    yield from range(max(lows), max(highs) + 1)


def _is_reachable(right: _Ranges, left: _Ranges, weight_bits: int, activation_bits: int) -> bool:
    # Give every group the largest width it may have: if the pair is not met then, it never is.
    caps = dict.fromkeys(right, weight_bits)
    for group in left:
        caps[group] = min(caps.get(group, activation_bits), activation_bits)
    widths = {group: min(high, caps[group]) for group, (_, high) in (right | left).items()}
    return (
        all(widths[group] >= low for group, (low, _) in (right | left).items())
        and max(widths[group] for group in right) == weight_bits
        and max(widths[group] for group in left) == activation_bits
    )
