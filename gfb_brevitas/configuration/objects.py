"""Entries of a configuration as the objects that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from gfb_brevitas.configuration.schema import (
    BoardBudget,
    CostBudget,
    FixRule,
    PaperBudgets,
    RangeRule,
    TieRule,
)
from gfb_brevitas.constraints import Budget, paper_budgets
from gfb_brevitas.costs import cost_from_name
from gfb_brevitas.rules import Fix, Range, Rule, Tie


def rule_of(entry: FixRule | RangeRule | TieRule) -> Rule:
    """What an entry of ``rules`` says."""
    if isinstance(entry, FixRule):
        return Fix(tupled(entry.fix), entry.bits, entry.kind)
    if isinstance(entry, RangeRule):
        return Range(tupled(entry.range), *entry.bits, entry.kind)
    return Tie(tupled(entry.tie))


def budgets_of(entry: PaperBudgets | CostBudget | BoardBudget) -> Sequence[Budget]:
    """The budgets of an entry of ``budgets``.

    Raises:
        ConfigurationError: If a value is outside its rule.
    """
    if isinstance(entry, PaperBudgets):
        widths = entry.paper if isinstance(entry.paper, tuple) else (entry.paper, None)
        return paper_budgets(*widths, preset=entry.preset, rho=entry.rho)
    if isinstance(entry, BoardBudget):
        return Budget.board(**entry.model_dump())
    return [
        Budget(
            cost=cost_from_name(entry.cost, **entry.options),
            beta=entry.beta,
            uniform_bits=entry.uniform_bits,
            limit=entry.limit,
            rho=entry.rho,
        )
    ]


def tupled(value: Any) -> Any:
    """Lists as tuples, inside of one another too."""
    return tuple(tupled(item) for item in value) if isinstance(value, list) else value


def as_dict(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass of settings."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}
