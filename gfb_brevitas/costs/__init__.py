"""Costs of a bit allocation: model size, mean widths, bit operations, memory, tables, any function.

A cost is bound to a model's profile once and then evaluates whole populations of candidates.

Example:
    >>> cost = WeightSize()
    >>> size_bits = cost.bind(model.profile)  # doctest: +SKIP
    >>> size_bits(bits)  # doctest: +SKIP
    array([5120., 4096.])
"""

from __future__ import annotations

from gfb_brevitas.costs.activation_memory import ActivationMemory
from gfb_brevitas.costs.bit_operations import BitOperations
from gfb_brevitas.costs.callable_cost import CallableCost
from gfb_brevitas.costs.latency_table import LatencyTable
from gfb_brevitas.costs.mean_activation_bits import MeanActivationBits
from gfb_brevitas.costs.mean_weight_bits import MeanWeightBits
from gfb_brevitas.costs.operator_costs import register_operator_cost
from gfb_brevitas.costs.protocol import BoundCost, Cost, HardwareCost, Joining, LayeredCost
from gfb_brevitas.costs.registry import cost_from_name, register_cost, registered_costs
from gfb_brevitas.costs.searched_profile import searched_profile
from gfb_brevitas.costs.weight_size import WeightSize

__all__ = [
    "ActivationMemory",
    "BitOperations",
    "BoundCost",
    "CallableCost",
    "Cost",
    "HardwareCost",
    "Joining",
    "LatencyTable",
    "LayeredCost",
    "MeanActivationBits",
    "MeanWeightBits",
    "WeightSize",
    "cost_from_name",
    "register_cost",
    "register_operator_cost",
    "registered_costs",
    "searched_profile",
]

register_cost("weight_size", WeightSize)
register_cost("mean_weight_bits", MeanWeightBits)
register_cost("mean_activation_bits", MeanActivationBits)
register_cost("bit_operations", BitOperations)
register_cost("activation_memory", ActivationMemory)
register_cost("latency_table", LatencyTable.load)
