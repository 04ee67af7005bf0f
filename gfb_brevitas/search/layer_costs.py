"""What each layer takes of every budget, as a run's folder holds it (``layer_costs.json``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.costs.protocol import HardwareCost, Joining, LayeredCost
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.search.formats import require_format
from gfb_brevitas.search.history import json_ready
from gfb_brevitas.space import Bits

LAYER_COSTS_FORMAT, LAYER_COSTS_VERSION = "gfb_brevitas.layer_costs", 1


@dataclass(frozen=True, kw_only=True)
class RecordedLayerCost:
    """What each layer takes of a budget, at the final allocation.

    Attributes:
        name: Name of the budget's cost.
        unit: The cost's unit.
        joined_by: How the layers make up the cost: ``"sum"``, ``"largest"`` or ``"longest path"``.
        limit: The most that the cost may be.
        value: The cost.
        layers: What each layer takes, by its name, in the order of the forward pass.
    """

    name: str
    unit: str
    joined_by: Joining
    limit: float
    value: float
    layers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RecordedLayerCosts:
    """What each layer takes of the budgets, at the final allocation.

    Attributes:
        budgets: The budgets whose cost says what each layer takes.
        hardware: What is built, for budgets on hardware: the ``target`` (board, frame rate, clock) and the
            hardware ``layers`` with their folding, as plain data; one for each target.
    """

    budgets: tuple[RecordedLayerCost, ...]
    hardware: tuple[Mapping[str, Any], ...]


def layer_costs_document(constraints: Constraints, bits: Bits) -> dict[str, Any]:
    """What each layer takes of every budget whose cost can say it.

    Args:
        constraints: The budgets, with the search space.
        bits: The allocation, shape ``(quantizers,)``.

    Raises:
        ConfigurationError: If a cost says something else than a number for each layer.
    """
    values = constraints.costs(bits[None])[0]
    rows: list[dict[str, Any]] = []
    built: list[dict[str, Any]] = []
    for j, cost in enumerate(budget.cost for budget in constraints.budgets):
        if isinstance(cost, LayeredCost):
            row = {
                "name": cost.name,
                "unit": cost.unit,
                "joined_by": _joining(cost),
                "limit": float(constraints.limits[j]),
                "value": float(values[j]),
                "layers": _parts(cost, constraints.profile, bits),
            }
            rows.append(row)
        if isinstance(cost, HardwareCost):
            hardware = dict(cost.hardware(constraints.profile, bits))
            built += [hardware] if hardware not in built else []
    document: dict[str, Any] = json_ready(
        {
            "format": LAYER_COSTS_FORMAT,
            "version": LAYER_COSTS_VERSION,
            "budgets": rows,
            "hardware": built,
        }
    )
    return document


def _joining(cost: LayeredCost) -> Joining:
    if cost.joined_by not in get_args(Joining):
        raise ConfigurationError(
            f"`joined_by` of the cost {cost.name!r} must be one of {', '.join(get_args(Joining))}; got "
            f"{cost.joined_by!r}."
        )
    return cost.joined_by


def _parts(cost: LayeredCost, profile: ModelProfile, bits: Bits) -> dict[str, float]:
    parts: Any = cost.parts(profile, bits)
    try:
        found = {str(layer): float(value) for layer, value in parts.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"`parts` of the cost {cost.name!r} must return a number for each layer, as a dict; got "
            f"{parts!r:.200}."
        ) from error
    if not all(map(math.isfinite, found.values())):
        raise ConfigurationError(f"`parts` of the cost {cost.name!r} must be finite; got {parts!r:.200}.")
    return found


def read_layer_costs(document: Any) -> RecordedLayerCosts:
    """Read what :func:`layer_costs_document` made.

    Raises:
        KeyError, TypeError, ValueError: If it is something else.
    """
    require_format(document, LAYER_COSTS_FORMAT, LAYER_COSTS_VERSION)
    return RecordedLayerCosts(
        budgets=tuple(_read_budget(row) for row in document["budgets"]),
        hardware=tuple(dict(entry) for entry in document["hardware"]),
    )


def _read_budget(row: Mapping[str, Any]) -> RecordedLayerCost:
    if row["joined_by"] not in get_args(Joining):
        raise ValueError(f"layers cannot be joined by {row['joined_by']!r}")
    return RecordedLayerCost(
        name=str(row["name"]),
        unit=str(row["unit"]),
        joined_by=row["joined_by"],
        limit=float(row["limit"]),
        value=float(row["value"]),
        layers={str(layer): float(value) for layer, value in row["layers"].items()},
    )
