"""How long it takes to change all bit widths of a model, here and in Brevitas itself."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
from _harness import Figures, Settings, median_seconds, run_benchmark
from torch import nn

from gfb_brevitas.adapters import apply_allocation, make_searchable


def measure(settings: Settings) -> Figures:
    return {"changing all widths, in milliseconds": [row(n, settings) for n in settings["quantizers"]]}


def row(quantizers: int, settings: Settings) -> dict[str, Any]:
    model = chain(quantizers)
    searchable = make_searchable(model, torch.randn(1, 4))
    generator = np.random.default_rng(0)
    rows = generator.integers(1, 9, (settings["repeats"] + 1, quantizers))
    allocations = iter([searchable.space.allocation(bits) for bits in rows])
    candidates = iter(rows)
    other = searchable.space.uniform(4)

    def use() -> None:
        with searchable.using(other):
            pass

    repeats = settings["repeats"]
    return {
        "quantizers": quantizers,
        "set_bits": 1000 * median_seconds(lambda: searchable.set_bits(next(candidates)), repeats),
        "set_allocation": 1000
        * median_seconds(lambda: searchable.set_allocation(next(allocations)), repeats),
        "using": 1000 * median_seconds(use, repeats),
        "freeze": 1000 * median_seconds(searchable.freeze, 3),
        "apply_allocation": 1000 * median_seconds(lambda: apply_allocation(model, other), 3),
        "quantizers made anew by Brevitas": 1000 * median_seconds(lambda: make_anew(model), 3),
    }


def chain(quantizers: int) -> nn.Module:
    """Layers with one weight and one activation quantizer each."""
    layers = [nn.Sequential(qnn.QuantLinear(4, 4, True), qnn.QuantReLU()) for _ in range(quantizers // 2)]
    return nn.Sequential(*layers).eval()


def make_anew(model: nn.Module) -> None:
    """The way to another width without this package; what quantizers learned is lost."""
    for module in model.modules():
        for name in ("act_quant", "weight_quant"):
            proxy = getattr(module, name, None)
            if proxy is not None:
                proxy.quant_injector = proxy.quant_injector.let(bit_width=4)
                proxy.init_tensor_quant()


if __name__ == "__main__":
    run_benchmark(
        "set_allocation",
        measure,
        settings={"quantizers": [10, 100, 400], "repeats": 200},
        quick={"repeats": 5},
    )
