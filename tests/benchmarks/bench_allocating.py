"""Time and memory of an allocation by sensitivities, over the number of quantizers.

The profile is made up: layers in a row, each with a weight and an activation quantizer, sizes that differ by
two orders of magnitude, a sensitivity that falls about fourfold with each bit. No network is run.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
from _harness import Figures, Settings, run_benchmark

import gfb_brevitas as gfb
from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import ActivationMemory, BitOperations
from gfb_brevitas.profile import ModelProfile, Operand, Product, QuantizerInfo
from gfb_brevitas.sensitivity import Allocator
from gfb_brevitas.space import SearchSpace

_BUDGETS = {
    "weight bits, activation bits": gfb.paper_budgets(3),
    "bit operations": [Budget(cost=BitOperations(), beta=0.9, uniform_bits=3)],
    "largest activation": [Budget(cost=ActivationMemory(total="largest"), uniform_bits=3)],
}


def chain_of_layers(layers: int, seed: int = 0) -> ModelProfile:
    """A profile of ``2 * layers`` quantizers of 1 to 8 bits."""
    sizes = np.exp(np.random.default_rng(seed).uniform(np.log(1e3), np.log(1e5), size=(layers, 3))).astype(
        int
    )
    quantizers, products = [], []
    for layer, (weights, activations, macs) in enumerate(sizes.tolist()):
        names = f"{layer}.act_quant", f"{layer}.weight_quant"
        for name, kind, elements in zip(names, ("activation", "weight"), (activations, weights), strict=True):
            quantizers.append(_quantizer(name, kind, elements, macs))
        left, right = (Operand(quantizers=(name,)) for name in names)
        products.append(Product(layer=str(layer), macs=macs, left=left, right=right))
    return ModelProfile(quantizers=tuple(quantizers), products=tuple(products))


def _quantizer(name: str, kind: Any, elements: int, macs: int) -> QuantizerInfo:
    return QuantizerInfo(
        name=name,
        kind=kind,
        elements=elements,
        largest_call_elements=elements,
        macs=macs,
        signed=kind == "weight",
        narrow_range=kind == "weight",
        granularity="per_tensor",
        min_bits=1,
        max_bits=8,
        initial_bits=8,
        tie_group=name,
    )


def _sensitivities(quantizers: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = np.exp(0.3 * rng.standard_normal((quantizers, 9)) + 2 * rng.standard_normal((quantizers, 1)))
    increases = noise * 4.0 ** -np.arange(9)
    return np.maximum.accumulate((increases - increases[:, -1:]).clip(0)[:, ::-1], axis=1)[:, ::-1]


def measure(settings: Settings) -> Figures:
    """A row per budget and number of quantizers; memory is what Python and NumPy allocate at most."""
    rows = [_row(quantizers, budgets) for budgets in _BUDGETS for quantizers in settings["quantizers"]]
    return {"allocations": rows}


def _row(quantizers: int, budgets: str) -> dict[str, Any]:
    constraints = Constraints(SearchSpace(chain_of_layers(quantizers // 2)), _BUDGETS[budgets])
    increases = _sensitivities(quantizers)
    began = time.process_time()
    allocator = Allocator(constraints)
    first = allocator.allocate(increases)
    first_s = time.process_time() - began
    began = time.process_time()
    allocator.allocate(1.1 * increases, exchange=False)
    further_s = time.process_time() - began
    return {
        "budgets": budgets,
        "quantizers": quantizers,
        "seconds": first_s,
        "further_allocation_seconds": further_s,
        "peak_mb": _peak_mb(constraints, increases),
        "budget_use": max(use.use for use in constraints.report(first)),
        "total_increase": float(increases[np.arange(quantizers), first].sum()),
    }


def _peak_mb(constraints: Constraints, increases: np.ndarray) -> float:
    tracemalloc.start()
    try:
        Allocator(constraints).allocate(increases)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    run_benchmark(
        "allocating",
        measure,
        settings={"quantizers": [50, 200, 1000]},
        quick={"quantizers": [50, 200]},
    )
