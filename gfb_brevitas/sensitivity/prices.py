"""What a change of one width takes of the budgets: the prices at which bits are allocated [ours]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.space import Bits, Vector

_ENTRIES_AT_A_TIME = 1 << 20  # widths in memory while costs are probed
_PROBES_OF_ADDITIVITY = 8
_LARGE = 1e18


class Prices:
    """Shares of the budgets that changes of single coordinates take, probed on the costs themselves.

    A probe is one candidate for every coordinate and width. Budgets whose changes add up, which a few fixed
    allocations tell, are probed once; with others, prices depend on where one stands.

    Args:
        constraints: The budgets and the search space.
        groups: The coordinates of the space.

    Attributes:
        additive: Shape ``(budgets,)``, whether changes of a budget's cost add up.
    """

    def __init__(self, constraints: Constraints, groups: WidthGroups) -> None:
        self._constraints, self._groups = constraints, groups
        self._limits = constraints.limits
        self._base = groups.low
        self._table = self._probed(groups.low)
        self.additive: NDArray[np.bool_] = self._adds_up()

    def at(self, widths: Bits) -> Vector:
        """Prices of changes from ``widths``.

        Args:
            widths: Group widths, shape ``(coordinates,)``.

        Returns:
            Shape ``(coordinates, largest width + 1, budgets)``: the share of the budget with the coordinate
            at that width, less the share at ``widths``. Outside a coordinate's range it is of no meaning.
        """
        if not self.additive.all() and not np.array_equal(widths, self._base):
            self._table, self._base = self._probed(widths), widths.copy()
        here: Vector = self._table[np.arange(len(widths)), widths]
        return np.asarray(self._table - here[:, None, :])

    def shares(self, rows: Bits) -> Vector:
        """Shares of the budgets, shape ``(P, budgets)``, of group widths ``(P, coordinates)``."""
        with np.errstate(over="ignore"):
            used = self._constraints.costs(self._groups.expand(rows)) / self._limits
        return np.asarray(np.clip(used, -_LARGE, _LARGE))

    def _probed(self, base: Bits) -> Vector:
        low, high = self._groups.low, self._groups.high
        spans = high - low + 1
        columns = np.repeat(np.arange(len(low)), spans)
        first = np.repeat(np.cumsum(spans) - spans, spans)
        widths = np.arange(len(columns)) - first + low[columns]
        table = np.zeros((len(low), int(high.max(initial=0)) + 1, len(self._limits)))
        at_a_time = max(1, _ENTRIES_AT_A_TIME // max(len(self._constraints.profile), 1))
        here = self.shares(base[None, :])[0]
        for begin in range(0, len(columns), at_a_time):
            part = slice(begin, begin + at_a_time)
            rows = np.repeat(base[None, :], len(columns[part]), axis=0)
            rows[np.arange(len(rows)), columns[part]] = widths[part]
            table[columns[part], widths[part]] = self.shares(rows) - here
        return table

    def _adds_up(self) -> NDArray[np.bool_]:
        low, high = self._groups.low, self._groups.high
        random = np.random.default_rng(0).integers(low, high + 1, size=(_PROBES_OF_ADDITIVITY, len(low)))
        rows: Bits = np.concatenate([random, high[None, :]])
        expected = self.shares(low[None, :]) + self._table[np.arange(len(low)), rows].sum(axis=1)
        return np.asarray(np.isclose(expected, self.shares(rows), rtol=1e-9, atol=1e-12).all(axis=0))
