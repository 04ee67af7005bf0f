"""The allocation that a sensitivity table suggests under budgets [ours].

A knapsack with one choice of a width for every coordinate. The greedy by gain per price walks along the
hull of each coordinate's choices, as the linear relaxation does (Sinha and Zoltners, "The Multiple-Choice
Knapsack Problem", 1979, doi:10.1287/opre.27.3.503). Prices are probed a bounded number of times, so that
time and memory grow with the number of pairs of a coordinate and a width; the budgets themselves are
always checked on the true costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.sensitivity.prices import Prices
from gfb_brevitas.space import Bits, Vector

_MOST_PROBES = 8
_MOST_EXCHANGES = 50
_MOST_PARTNERS = 128  # coordinates on either side of an exchange
_CHECKED_AT_A_TIME = 64
_FREE = 1e-9  # share of the budgets below which a change counts as free

Move = tuple[int, int]
"""A coordinate, and the width that it gets."""


def allocate(constraints: Constraints, increases: NDArray[np.float64], *, exchange: bool = True) -> Bits:
    """The feasible allocation with the smallest sum of increases that :class:`Allocator` finds.

    Args:
        constraints: The budgets and the search space.
        increases: Shape ``(quantizers, largest width + 1)``, see :class:`SensitivityTable`.
        exchange: Whether to exchange bits at the end.

    Returns:
        Shape ``(quantizers,)``, feasible.

    Raises:
        InfeasibleBudgetError: If no feasible allocation is known.
    """
    return Allocator(constraints).allocate(increases, exchange=exchange)


class Allocator:
    """Allocates bits by a sensitivity table, and fills up what is left of budgets. Deterministic.

    From the smallest widths, the coordinate is raised that saves most loss for its share of the budgets,
    until nothing more fits; then bits are exchanged between pairs of coordinates.

    Example:
        >>> allocator = Allocator(Constraints(model.space, paper_budgets(3)))  # doctest: +SKIP
        >>> allocator.is_full(allocator.allocate(table.increases))  # doctest: +SKIP
        True

    Args:
        constraints: The budgets and the search space.
    """

    def __init__(self, constraints: Constraints) -> None:
        self._constraints = constraints
        self._groups = WidthGroups(constraints.space)
        self._all_monotone = all(budget.cost.monotone for budget in constraints.budgets)

    def allocate(self, increases: NDArray[np.float64], *, exchange: bool = True) -> Bits:
        """See :func:`allocate`; prices are kept for further calls."""
        losses = self._losses(increases)
        widths = self._raised(self._start, losses)
        if exchange:
            widths = self._filled(self._exchanged(widths, losses), losses)
        return self._groups.expand(widths)

    def fill(self, bits: Bits, increases: NDArray[np.float64] | None = None) -> Bits:
        """Raise widths until no single one can be raised without breaking a budget.

        Args:
            bits: Shape ``(quantizers,)``, feasible.
            increases: As in :func:`allocate`; ``None``: as if every quantizer's part of the loss fell by
                four with each bit, as the power of rounding errors does.

        Returns:
            Shape ``(quantizers,)``, feasible, no width below that of ``bits``.
        """
        if increases is None:
            increases = np.tile(4.0 ** -np.arange(self._groups.high.max(initial=0) + 1.0), (len(bits), 1))
        return self._groups.expand(self._filled(self._groups.collapse(bits), self._losses(increases)))

    def is_full(self, bits: Bits) -> bool:
        """Whether no single width can be raised without breaking a budget; ``bits`` is feasible."""
        widths = self._groups.collapse(bits)
        return not len(self._feasible_raises(widths))

    @cached_property
    def _start(self) -> Bits:
        space = self._constraints.space
        return self._groups.collapse(self._constraints.repair(space.bits(space.smallest())))

    @cached_property
    def _prices(self) -> Prices:
        return Prices(self._constraints, self._groups)

    def _losses(self, increases: NDArray[np.float64]) -> Vector:
        """Increases of coordinates: the sums over their quantizers; shape ``(coordinates, width + 1)``."""
        losses = np.zeros((len(self._groups.low), increases.shape[1]))
        np.add.at(losses, self._groups.of_quantizers, increases)
        return losses

    def _feasible(self, rows: Bits) -> NDArray[np.bool_]:
        return self._constraints.feasible(self._groups.expand(rows))

    def _raised(self, widths: Bits, losses: Vector) -> Bits:
        additive = bool(self._prices.additive.all())
        for _ in range(_MOST_PROBES):
            chain = self._chain(widths, losses)
            fitting = self._longest_feasible(widths, chain)
            done = additive or fitting == len(chain)
            # Where prices change on the way, they are probed again half way.
            widths = _after(widths, chain[: fitting if done else (fitting + 1) // 2])
            if done or not fitting:
                break
        return self._filled(widths, losses)

    def _chain(self, widths: Bits, losses: Vector) -> list[Move]:
        """The greedy's raises in their order, as far as prices tell."""
        table, gains = self._prices.at(widths).tolist(), losses.tolist()
        room = (1.0 + _FREE - self._prices.shares(widths[None, :])[0]).tolist()
        alone, adds = list(room), self._prices.additive.tolist()
        budgets, current, high = range(len(room)), widths.tolist(), self._groups.high.tolist()

        def best(k: int) -> tuple[float, int, int] | None:
            """The coordinate's raise with most gain for its price, among those that fit."""
            now, found = current[k], None
            before = table[k][now]
            for width in range(now + 1, high[k] + 1):
                price = table[k][width]
                if all(price[j] - before[j] <= room[j] if adds[j] else price[j] <= alone[j] for j in budgets):
                    paid = max(sum(price[j] - before[j] for j in budgets), _FREE)
                    worth = (gains[k][now] - gains[k][width]) / paid
                    if worth > 0 and (found is None or -worth < found[0]):
                        found = (-worth, k, width)
            return found

        heap = [raise_ for k in range(len(current)) if (raise_ := best(k)) is not None]
        heapify(heap)
        chain: list[Move] = []
        while heap:
            first = heappop(heap)
            k, width = first[1], first[2]
            if (still := best(k)) == first:
                for j in budgets:
                    room[j] -= table[k][width][j] - table[k][current[k]][j]
                current[k] = width
                chain.append((k, width))
                still = best(k)
            if still is not None:
                heappush(heap, still)
        return chain

    def _longest_feasible(self, widths: Bits, chain: list[Move]) -> int:
        """How many raises of a chain fit; by halving, as they fill the budgets."""
        fits, too_many = 0, len(chain) + 1
        tried = len(chain)
        while too_many - fits > 1:
            if self._feasible(_after(widths, chain[:tried])[None, :])[0]:
                fits = tried
            else:
                too_many = tried
            tried = (fits + too_many) // 2
        return fits

    def _filled(self, widths: Bits, losses: Vector) -> Bits:
        while len(moves := self._feasible_raises(widths)):
            before = widths
            for k, width in self._by_worth(before, moves, losses):
                raised = widths.copy()
                raised[k] = width
                if widths[k] == before[k] and self._feasible(raised[None, :])[0]:
                    widths = raised
        return widths

    def _feasible_raises(self, widths: Bits) -> Bits:
        """All raises of one coordinate that fit: by one bit, and by more where costs can fall again."""
        target = np.minimum(widths + 1, self._groups.high) if self._all_monotone else self._groups.high
        moves = self._groups.moves(widths, target)
        return moves[self._feasible(moves)] if len(moves) else moves

    def _by_worth(self, widths: Bits, moves: Bits, losses: Vector) -> Iterator[Move]:
        """Raises by gain for their price; without a gain, the narrowest coordinate first."""
        columns = (moves != widths).argmax(axis=1)
        wider = moves[np.arange(len(moves)), columns]
        paid = (self._prices.shares(moves) - self._prices.shares(widths[None, :])).sum(axis=1)
        gain = losses[columns, widths[columns]] - losses[columns, wider]
        worth = gain / np.maximum(paid, _FREE)
        order = np.lexsort((columns, wider, -worth))
        yield from zip(columns[order].tolist(), wider[order].tolist(), strict=True)

    def _exchanged(self, widths: Bits, losses: Vector) -> Bits:
        for _ in range(_MOST_EXCHANGES):
            better = next(self._better(widths, losses), None)
            if better is None:
                break
            widths = better
        return widths

    def _better(self, widths: Bits, losses: Vector) -> Iterator[Bits]:
        """Feasible exchanges between two coordinates that save loss, the best first."""
        table = self._prices.at(widths)
        room = 1.0 + _FREE - self._prices.shares(widths[None, :])[0]
        down, less, freed, lost = self._changes(widths, losses, table, -1)
        up, more, taken, saved = self._changes(widths, losses, table, 1)
        total = lost[:, None] + saved[None, :]
        total[down[:, None] == up[None, :]] = 0.0
        fits = (freed[:, None] + taken[None, :] <= room).all(axis=2)
        total[~fits] = 0.0
        worst = -1e-9 * float(losses[np.arange(len(widths)), widths].sum())
        order = np.argsort(total, axis=None, kind="stable")
        order = order[: int((total < worst).sum())]
        for begin in range(0, len(order), _CHECKED_AT_A_TIME):
            first, second = np.unravel_index(order[begin : begin + _CHECKED_AT_A_TIME], total.shape)
            rows = np.repeat(widths[None, :], len(first), axis=0)
            rows[np.arange(len(rows)), down[first]] = less[first]
            rows[np.arange(len(rows)), up[second]] = more[second]
            yield from rows[self._feasible(rows)]

    def _changes(
        self, widths: Bits, losses: Vector, table: Vector, sign: int
    ) -> tuple[Bits, Bits, Vector, Vector]:
        """Coordinates, new widths, prices and changes of the loss of one or two bits less or more.

        Those with the smallest change of the loss for their price, if they are very many.
        """
        columns = np.tile(np.arange(len(widths)), 2)
        wanted = widths[columns] + sign * np.repeat([1, 2], len(widths))
        inside = (wanted >= self._groups.low[columns]) & (wanted <= self._groups.high[columns])
        columns, wanted = columns[inside], wanted[inside]
        prices = table[columns, wanted]
        change = losses[columns, wanted] - losses[columns, widths[columns]]
        worth = change / np.maximum(np.abs(prices.sum(axis=1)), _FREE)
        kept = np.argsort(worth, kind="stable")[: 2 * _MOST_PARTNERS]
        return columns[kept], wanted[kept], prices[kept], change[kept]


def _after(widths: Bits, chain: list[Move]) -> Bits:
    raised = widths.copy()
    for k, width in chain:
        raised[k] = width
    return raised
