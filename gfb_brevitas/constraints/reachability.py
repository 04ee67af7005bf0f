"""Whether budgets can be met at all, found out before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gfb_brevitas.constraints.budget import Budget
from gfb_brevitas.constraints.descent import smallest_found
from gfb_brevitas.constraints.groups import GroupScore, WidthGroups
from gfb_brevitas.costs.protocol import LayeredCost
from gfb_brevitas.costs.searched_profile import searched_profile
from gfb_brevitas.space import Bits, SearchSpace, Vector

_SHOWN = 12


def closest(budgets: Sequence[Budget], groups: WidthGroups, violation: GroupScore, others: Bits) -> Bits:
    """Group widths that meet all budgets, or come closest to it.

    Args:
        budgets: The budgets.
        groups: The coordinates.
        violation: Total violation of group widths.
        others: Further group widths to start the search from, shape ``(n, coordinates)``.

    Returns:
        Group widths, shape ``(coordinates,)``.
    """
    # With monotone costs alone, the smallest widths are best for every budget at once.
    if _is_exact(budgets) or violation(groups.low[None, :])[0] == 0:
        return groups.low
    return smallest_found(violation, groups, extra_starts=others, enough=0.0)


@dataclass(frozen=True, kw_only=True)
class SmallestCosts:
    """The smallest reachable cost of each budget alone.

    Attributes:
        values: Shape ``(budgets,)``; exact for monotone costs, the smallest found for others.
        at: Group widths at which they are reached, shape ``(budgets, coordinates)``.
        fixed: Whether each is the same at the smallest and at the largest widths.
    """

    values: Vector
    at: Bits
    fixed: tuple[bool, ...]


def smallest_costs(
    budgets: Sequence[Budget], groups: WidthGroups, costs: Sequence[GroupScore]
) -> SmallestCosts:
    """Find the smallest reachable cost of each budget.

    Args:
        budgets: The budgets.
        groups: The coordinates.
        costs: The cost of each budget, of group widths.
    """
    rows = [
        groups.low if budget.cost.monotone else smallest_found(cost, groups)
        for budget, cost in zip(budgets, costs, strict=True)
    ]
    values = [float(cost(row[None, :])[0]) for cost, row in zip(costs, rows, strict=True)]
    ends = np.stack([groups.low, groups.high])
    fixed = [bool((cost(ends) == value).all()) for cost, value in zip(costs, values, strict=True)]
    return SmallestCosts(values=np.array(values), at=np.stack(rows), fixed=tuple(fixed))


def explain(
    smallest: SmallestCosts,
    nearest: Bits,
    budgets: Sequence[Budget],
    limits: Vector,
    reachable: Sequence[bool],
    space: SearchSpace,
    groups: WidthGroups,
) -> str:
    """Why budgets cannot be met: per budget the limit and the smallest reachable cost.

    Args:
        smallest: The smallest cost of each budget alone.
        nearest: Group widths that come closest to meeting all, shape ``(coordinates,)``.
        budgets: The budgets.
        limits: Their limits, shape ``(budgets,)``.
        reachable: Whether each can be met alone.
        space: The search space, for names.
        groups: Its coordinates.
    """
    if all(reachable):
        first = (
            "Each budget can be met alone, but no allocation was found that meets all of them together. "
            f"The closest has {_widths(nearest, space)}."
        )
    elif _is_exact(budgets):
        first = "The search space holds no allocation that meets the budgets."
    else:
        first = "No allocation that meets the budgets was found in the search space."
    lines = [
        _line(
            budget,
            float(limits[j]),
            float(smallest.values[j]),
            "whatever the widths" if smallest.fixed[j] else f"at {_widths(smallest.at[j], space)}",
            reachable[j],
            others_fail=not all(reachable),
        )
        + ("" if reachable[j] else _largest_part(budget, groups.expand(smallest.at[j]), space))
        for j, budget in enumerate(budgets)
    ]
    too_small = [j for j, fits in enumerate(reachable) if not fits] or range(len(budgets))
    fixed = all(smallest.fixed[j] for j in too_small)
    advice = "Raise the budgets that are too small" + ("." if fixed else ", or allow smaller widths.")
    of_costs = dict.fromkeys(getattr(budgets[j].cost, "advice", "") for j in too_small)
    return "\n".join([first, *lines, " ".join([advice, *filter(None, of_costs)])])


def _is_exact(budgets: Sequence[Budget]) -> bool:
    return all(budget.cost.monotone for budget in budgets)


def _line(
    budget: Budget, limit: float, smallest: float, where: str, reachable: bool, *, others_fail: bool
) -> str:
    unit = budget.cost.unit
    in_words: Callable[[float], str] = getattr(budget.cost, "in_words", lambda value: f"{value:.10g} {unit}")
    found = "smallest reachable" if budget.cost.monotone else "smallest found"
    if reachable and others_fail:
        return f"- {budget.name}: at most {limit:.10g} {unit}; {found}: {smallest:.10g}."
    return (
        f"- {budget.name}{'' if reachable else ' CANNOT BE MET'}: must be at most {in_words(limit)} "
        f"({budget.describe()}); {found}: {in_words(smallest)}, {where}."
    )


def _largest_part(budget: Budget, bits: Bits, space: SearchSpace) -> str:
    """The layer that takes most, for a cost that can tell."""
    if not isinstance(budget.cost, LayeredCost):
        return ""
    parts = budget.cost.parts(searched_profile(space), bits)
    if not parts:
        return ""
    name = max(parts, key=lambda layer: parts[layer])
    return f" The most of it: {parts[name]:.10g} {budget.cost.unit} in {name!r}."


def _widths(groups: Bits, space: SearchSpace) -> str:
    lowest = np.array([c.min_bits for c in space.coordinates])
    if np.array_equal(groups, lowest):
        span = f"{lowest.min()}" if lowest.min() == lowest.max() else f"{lowest.min()} to {lowest.max()}"
        return f"the smallest width of every quantizer ({span} bits)"
    pairs = [f"{c.name} {bits}" for c, bits in zip(space.coordinates, groups.tolist(), strict=True)]
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return ", ".join(pairs[:_SHOWN]) + more
