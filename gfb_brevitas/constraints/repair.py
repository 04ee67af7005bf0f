"""From an allocation over budget to one near it within budget.

[ours] all of it; the paper's search only penalises. Distance between allocations is the sum over
coordinates of the difference in log2 of bits, the distance of the vectors that CMA-ES searches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.constraints.groups import GroupScore, WidthGroups
from gfb_brevitas.space import Bits


def lower(wanted: Bits, groups: WidthGroups, violation: GroupScore) -> Bits:
    """Lower one coordinate at a time until nothing is violated or all are at their smallest.

    Each step is the one (of any number of bits) that buys the most violation per distance. Where no
    single coordinate buys any (two equally large tensors and a budget on the largest), all are
    lowered by a bit; :func:`give_back` returns what was not needed.

    Args:
        wanted: Group widths, shape ``(coordinates,)``.
        groups: The coordinates.
        violation: Total violation of group widths; zero when feasible.

    Returns:
        Group widths, shape ``(coordinates,)``, none above ``wanted``.
    """
    current, remaining = wanted, float(violation(wanted[None, :])[0])
    while remaining > 0 and np.any(current > groups.low):
        moves = groups.moves(current, groups.low)
        left = violation(moves)
        gain = (remaining - left) / np.abs(np.log2(moves / current)).sum(axis=1)
        best = int(np.argmax(gain))
        if gain[best] > 0:
            current, remaining = moves[best], float(left[best])
        else:
            current = np.maximum(current - 1, groups.low)
            remaining = float(violation(current[None, :])[0])
    return current


def give_back(
    current: Bits, wanted: Bits, groups: WidthGroups, feasible: Callable[[Bits], NDArray[np.bool_]]
) -> Bits:
    """Move coordinates back towards ``wanted`` as long as the budgets hold.

    The shortest feasible move (in bits) comes first, of those the one that covers most distance.

    Args:
        current: Feasible group widths, shape ``(coordinates,)``.
        wanted: Group widths, shape ``(coordinates,)``.
        groups: The coordinates.
        feasible: Feasibility of group widths.

    Returns:
        Feasible group widths, shape ``(coordinates,)``, each between ``current`` and ``wanted``.
    """
    while True:
        moves = groups.moves(current, wanted)
        moves = moves[feasible(moves)]
        if not len(moves):
            return current
        length = np.abs(moves - current).sum(axis=1)
        distance = np.abs(np.log2(moves / current)).sum(axis=1)
        current = moves[np.lexsort((-distance, length))[0]]
