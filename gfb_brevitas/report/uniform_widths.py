"""What a model costs at every uniform width, and at its smallest and largest widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from gfb_brevitas.constraints import Budget
from gfb_brevitas.constraints.descent import smallest_found
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.costs import ActivationMemory, BitOperations, Cost, MeanActivationBits, WeightSize
from gfb_brevitas.costs.searched_profile import searched_profile
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.quantities import quantity
from gfb_brevitas.report.budgets import ABOVE
from gfb_brevitas.report.names import Name
from gfb_brevitas.space import Bits, SearchSpace, Vector
from gfb_brevitas.terminal import compact_table


@dataclass(frozen=True, kw_only=True)
class UniformCost:
    """A cost at uniform widths.

    Attributes:
        name: The cost.
        unit: Its unit.
        at_uniform_bits: Its value at each width; a quantizer that cannot take a width has the nearest one.
        smallest: The smallest that was found in the whole space.
        is_smallest_possible: Whether it is known that nothing in the space is smaller: the cost never falls
            when a width rises.
        limit: The limit of a budget on it, if there is one.
    """

    name: str
    unit: str
    at_uniform_bits: dict[int, float]
    smallest: float
    is_smallest_possible: bool
    limit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def uniform_costs(space: SearchSpace, budgets: Sequence[Budget] = ()) -> list[UniformCost]:
    """The usual costs of a model, and those of budgets, at every uniform width of its space.

    Args:
        space: The search space.
        budgets: Budgets on further costs.

    Raises:
        ConfigurationError: If a budget's cost is not defined for the model.
    """
    widths = range(int(min(c.min_bits for c in space.coordinates)), _largest(space) + 1)
    bits = np.array([space.bits(space.uniform(width)) for width in widths])
    usual = [_valued(cost, space, bits, widths) for cost in _usual()]
    asked = []
    for budget in budgets:
        found = _valued(budget.cost, space, bits, widths, budget.limit)
        assert found is not None
        asked.append(found)
    return [cost for cost in usual if cost is not None] + asked


def uniform_costs_table(costs: Sequence[UniformCost]) -> Table:
    """A table for the terminal: a row per cost, a column per width, and the smallest that can be reached.

    That is ``<= 12`` where 12 is the smallest found and a smaller one may exist.
    """
    table = compact_table(caption_justify="left")
    table.add_column("cost at uniform bits", min_width=12)
    for width in costs[0].at_uniform_bits if costs else ():
        table.add_column(str(width), justify="right", no_wrap=True)
    table.add_column("smallest", justify="right", no_wrap=True)
    if any(cost.limit is not None for cost in costs):
        table.add_column("limit", justify="right", no_wrap=True)
    for cost in costs:
        limit = [] if cost.limit is None else [_short(cost.limit)]
        name = Name(f"{cost.name} ({cost.unit})")
        cells = [_cell(value, cost.limit) for value in cost.at_uniform_bits.values()]
        table.add_row(name, *cells, _smallest(cost), *limit)
    if any(cost.limit is not None for cost in costs):
        table.caption = f"{ABOVE} above the limit"
    return table


def _cell(value: float, limit: float | None) -> Text:
    if limit is None or value <= limit * (1 + 1e-12):
        return Text(_short(value))
    return Text(f"{_short(value)}{ABOVE}", style="bold red")


def _usual() -> tuple[Cost, ...]:
    return WeightSize(), ActivationMemory(), MeanActivationBits(), BitOperations()


def _largest(space: SearchSpace) -> int:
    return max(c.max_bits for c in space.coordinates)


def _valued(
    cost: Cost, space: SearchSpace, bits: Any, widths: range, limit: float | None = None
) -> UniformCost | None:
    try:
        value = cost.bind(searched_profile(space))
        values = value(bits)
    except ConfigurationError:
        if limit is not None:
            raise
        return None  # such as mean activation bits of a model without activation quantizers
    groups = WidthGroups(space)

    def of_groups(widths: Bits) -> Vector:
        return value(groups.expand(widths))

    least = groups.low if cost.monotone else smallest_found(of_groups, groups)
    return UniformCost(
        name=cost.name,
        unit=cost.unit,
        at_uniform_bits=dict(zip(widths, map(float, values), strict=True)),
        smallest=float(of_groups(least[None, :])[0]),
        is_smallest_possible=cost.monotone,
        limit=limit,
    )


def _smallest(cost: UniformCost) -> str:
    return f"{'' if cost.is_smallest_possible else '<= '}{_short(cost.smallest)}"


def _short(value: float) -> str:
    return quantity(value, 3)
