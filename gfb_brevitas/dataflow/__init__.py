"""A model as FINN builds it: hardware layers, and their cost for a population of allocations.

Example:
    >>> import gfb_brevitas as gfb
    >>> budgets = gfb.Budget.board("Pynq-Z1", fps=30_000, utilisation=0.7)
    >>> [budget.name for budget in budgets]
    ['lut', 'bram_18k', 'dsp', 'cycles']
"""

from gfb_brevitas.dataflow.accelerator import Accelerator, PopulationCost, Target
from gfb_brevitas.dataflow.board_budgets import board_budgets
from gfb_brevitas.dataflow.costs import FpgaCycles, FpgaLatency, FpgaResource
from gfb_brevitas.dataflow.folded_layers import FoldedLayer, folded_layers
from gfb_brevitas.dataflow.from_layers import hardware_graph
from gfb_brevitas.dataflow.graph import HardwareGraph, HardwareLayer

__all__ = [
    "Accelerator",
    "FoldedLayer",
    "FpgaCycles",
    "FpgaLatency",
    "FpgaResource",
    "HardwareGraph",
    "HardwareLayer",
    "PopulationCost",
    "Target",
    "board_budgets",
    "folded_layers",
    "hardware_graph",
]
