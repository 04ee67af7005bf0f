"""Budgets on costs: feasibility, penalties, what is reachable, and repair.

Example:
    >>> constraints = Constraints(model.space, paper_budgets(2))  # doctest: +SKIP
    >>> constraints.check_reachable()  # doctest: +SKIP
    >>> constraints.feasible(bits)  # doctest: +SKIP
    array([ True, False])
"""

from __future__ import annotations

from gfb_brevitas.constraints.baselines import Baseline, by_hand, widest_uniform
from gfb_brevitas.constraints.budget import Budget, BudgetUse
from gfb_brevitas.constraints.constraints import Constraints, PenaltyKind
from gfb_brevitas.constraints.paper import PaperPreset, paper_budgets

__all__ = [
    "Baseline",
    "Budget",
    "BudgetUse",
    "Constraints",
    "PaperPreset",
    "PenaltyKind",
    "by_hand",
    "paper_budgets",
    "widest_uniform",
]
