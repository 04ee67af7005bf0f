"""Profiles small enough to compute their costs by hand, and random ones."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np

from gfb_brevitas.profile import ModelProfile, Operand, Product, QuantizerInfo, QuantizerKind
from gfb_brevitas.space import Bits


def quantizer(name: str, kind: QuantizerKind, elements: int, **changes: Any) -> QuantizerInfo:
    settings = {
        "largest_call_elements": elements,
        "macs": 0,
        "signed": kind == "weight",
        "narrow_range": kind == "weight",
        "granularity": "tensor",
        "min_bits": 1,
        "max_bits": 8,
        "initial_bits": 8,
        "tie_group": name,
    }
    return QuantizerInfo(name=name, kind=kind, elements=elements, **(settings | changes))


def product(layer: str, macs: int, left: tuple[str, ...] | float, right: tuple[str, ...] | float) -> Product:
    sides = [
        Operand(quantizers=side) if isinstance(side, tuple) else Operand(constant_bits=side)
        for side in (left, right)
    ]
    return Product(layer=layer, macs=macs, left=sides[0], right=sides[1])


def two_layers() -> ModelProfile:
    """A convolution on a float input, then a linear layer that reads a concatenation.

    Columns: conv.weight, conv.act, skip.act, fc.weight.
    """
    return ModelProfile(
        quantizers=(
            quantizer("conv.weight", "weight", 10),
            quantizer("conv.act", "activation", 100),
            quantizer("skip.act", "activation", 60, largest_call_elements=40),
            quantizer("fc.weight", "weight", 30),
        ),
        products=(
            product("conv", 1000, 32, ("conv.weight",)),
            product("fc", 200, ("conv.act", "skip.act"), ("fc.weight",)),
        ),
        constant_weight_bits=64.0,
    )


@st.composite
def profiles(draw: st.DrawFn) -> ModelProfile:
    """Chains of one to four layers, some with ties, of any sizes."""
    quantizers: list[QuantizerInfo] = []
    products: list[Product] = []
    tied = draw(st.booleans())
    for i in range(draw(st.integers(1, 4))):
        elements = st.integers(1, 10_000)
        tie = {"tie_group": "act0"} if tied else {}
        quantizers.append(quantizer(f"act{i}", "activation", draw(elements), **tie))
        quantizers.append(quantizer(f"weight{i}", "weight", draw(elements)))
        left = (f"act{i}", "act0") if draw(st.booleans()) else (f"act{i}",)
        products.append(product(f"layer{i}", draw(elements), left, (f"weight{i}",)))
    return ModelProfile(quantizers=tuple(quantizers), products=tuple(products))


def random_bits(profile: ModelProfile, rows: int, seed: int = 0) -> Bits:
    """Widths from 1 to 8, not tied; shape ``(rows, quantizers)``."""
    return np.random.default_rng(seed).integers(1, 9, size=(rows, len(profile)))
