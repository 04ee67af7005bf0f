"""What a run's folder says about the model and the budgets, for those who look at the run without them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.search.history import json_ready
from gfb_brevitas.search.layer_costs import layer_costs_document

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

PROFILE_FORMAT, PROFILE_VERSION = "gfb_brevitas.profile", 1


def profile_document(constraints: Constraints) -> dict[str, Any]:
    """The quantizers, the ranges of their widths, and the budgets with their costs at uniform widths.

    Args:
        constraints: The budgets, with the search space.
    """
    space = constraints.space
    ranges = {name: (c.min_bits, c.max_bits, c.name) for c in space.coordinates for name in c.quantizers}
    quantizers = []
    for info in space.profile:
        low, high, tie = ranges.get(info.name, (info.initial_bits, info.initial_bits, info.tie_group))
        quantizers.append(asdict(info) | {"min_bits": low, "max_bits": high, "tie_group": tie})
    widths = range(min(q["min_bits"] for q in quantizers), max(q["max_bits"] for q in quantizers) + 1)
    uniform = np.array([space.bits(space.uniform(width)) for width in widths])
    costs = constraints.costs(uniform)
    layer_costs_document(constraints, uniform[0])  # a cost that does it wrong is found before the run
    budgets = [
        {
            "name": budget.name,
            "unit": budget.cost.unit,
            "limit": float(constraints.limits[j]),
            "at_uniform_bits": dict(zip(map(str, widths), costs[:, j].tolist(), strict=True)),
        }
        for j, budget in enumerate(constraints.budgets)
    ]
    document: dict[str, Any] = json_ready(
        {
            "format": PROFILE_FORMAT,
            "version": PROFILE_VERSION,
            "quantizers": quantizers,
            "refused": [asdict(item) for item in space.profile.refused],
            "float_layers": [asdict(item) for item in space.profile.float_layers],
            "unknown_operators": [asdict(found) for found in space.profile.unknown_operators],
            "budgets": budgets,
        }
    )
    return document


def mean_clipping_values(model: SearchableModel) -> dict[str, dict[int, float]]:
    """Learned clipping values a(b) by quantizer and width; of one that has a value per channel the mean."""
    return {
        name: {bits: float(value.mean()) for bits, value in values.items()}
        for name, values in model.clipping_values().items()
    }
