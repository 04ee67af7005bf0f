"""The allocation that a sensitivity table suggests under budgets [ours]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.space import Bits, Vector

_MOST_EXCHANGES = 50
_Score = Callable[[Bits], Vector]


def allocate(constraints: Constraints, increases: NDArray[np.float64], *, exchange: bool = True) -> Bits:
    """The feasible allocation with the smallest sum of increases that a greedy search finds.

    From the smallest widths, the coordinate is raised that saves most loss for its share of the budgets,
    until nothing more fits; then bits are exchanged between pairs of coordinates. Deterministic.

    Args:
        constraints: The budgets and the search space.
        increases: Shape ``(quantizers, largest width + 1)``, see :class:`SensitivityTable`.
        exchange: Whether to exchange bits at the end.

    Returns:
        Shape ``(quantizers,)``, feasible.

    Raises:
        InfeasibleBudgetError: If no feasible allocation is known.
    """
    space, groups = constraints.space, WidthGroups(constraints.space)
    columns = np.arange(len(increases))

    def score(widths: Bits) -> Vector:
        total: Vector = increases[columns, groups.expand(widths)].sum(axis=-1)
        return total

    widths = groups.collapse(constraints.repair(space.bits(space.smallest())))
    widths = _raised(widths, score, constraints, groups)
    return groups.expand(_exchanged(widths, score, constraints, groups) if exchange else widths)


def _raised(widths: Bits, score: _Score, constraints: Constraints, groups: WidthGroups) -> Bits:
    limits = constraints.limits
    while True:
        moves = groups.moves(widths, groups.high)
        moves = moves[constraints.feasible(groups.expand(moves))] if len(moves) else moves
        if not len(moves):
            return widths
        before = constraints.costs(groups.expand(widths)[None])
        price = ((constraints.costs(groups.expand(moves)) - before) / limits).sum(axis=1)
        gain = (score(widths[None]) - score(moves)) / np.maximum(price, 1e-9)
        if gain.max() <= 0:
            return widths
        widths = moves[int(np.argmax(gain))]


def _exchanged(widths: Bits, score: _Score, constraints: Constraints, groups: WidthGroups) -> Bits:
    for _ in range(_MOST_EXCHANGES):
        moves = _exchanges(widths, groups)
        better = moves[score(moves) < score(widths[None]) * (1 - 1e-9)]
        better = better[constraints.feasible(groups.expand(better))] if len(better) else better
        if not len(better):
            break
        widths = better[int(np.argmin(score(better)))]
    return widths


def _exchanges(widths: Bits, groups: WidthGroups) -> Bits:
    """One coordinate one or two bits down, another one or two bits up; within the space."""
    count = len(widths)
    down, up, less, more = (
        axis.ravel() for axis in np.meshgrid(range(count), range(count), (1, 2), (1, 2), indexing="ij")
    )
    moves = np.repeat(widths[None, :], len(down), axis=0)
    rows = np.arange(len(moves))
    moves[rows, down] -= less
    moves[rows, up] += more
    inside = ((moves >= groups.low) & (moves <= groups.high)).all(axis=1)
    kept: Bits = moves[inside & (down != up)]
    return kept
