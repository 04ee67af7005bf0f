"""Smallest values of scores that need not be monotone: coordinate descent from several starts."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from gfb_brevitas.constraints.groups import GroupScore, WidthGroups
from gfb_brevitas.space import Bits

_DESCENTS = 8
_RANDOM_STARTS = 16
_MAX_SWEEPS = 50


def smallest_found(
    score: GroupScore, groups: WidthGroups, *, extra_starts: Bits | None = None, enough: float = -math.inf
) -> Bits:
    """Group widths with the smallest score found; deterministic, and not proof of a minimum.

    Starts are the uniform widths, a few fixed random allocations and ``extra_starts``. From the best
    of them one coordinate at a time is descended, and from the best that this finds two at a time.

    Args:
        score: Scores of group widths.
        groups: The coordinates.
        extra_starts: Further starts, shape ``(n, coordinates)``.
        enough: A score at which the search may stop.

    Returns:
        Group widths, shape ``(coordinates,)``.
    """
    starts = _starts(groups)
    if extra_starts is not None:
        starts = np.concatenate([extra_starts, starts])
    promising: Bits = starts[np.argsort(score(starts), kind="stable")[:_DESCENTS]]
    best: Bits = promising[0]
    lowest = math.inf
    for start in promising:
        found = descend(score, groups, start, enough=enough)
        value = float(score(found[None, :])[0])
        if value < lowest:
            best, lowest = found, value
        if lowest <= enough:
            break
    else:
        best = descend(score, groups, best, together=2, enough=enough)
    return best


def descend(
    score: GroupScore, groups: WidthGroups, start: Bits, *, together: int = 1, enough: float = -math.inf
) -> Bits:
    """Set one coordinate after the other to its best width until nothing improves.

    Args:
        score: Scores of group widths.
        groups: The coordinates.
        start: Group widths, shape ``(coordinates,)``.
        together: How many coordinates are set at once.
        enough: A score at which the search may stop.

    Returns:
        Group widths, shape ``(coordinates,)``; among equally good widths the smallest.
    """
    current, value = start, float(score(start[None, :])[0])
    free = np.flatnonzero(groups.high > groups.low).tolist()
    for _ in range(_MAX_SWEEPS):
        before = value
        for chosen in combinations(free, min(together, len(free))):
            candidates = _variations(current, groups, chosen)
            scores = score(candidates)
            best = int(np.argmin(scores))
            if scores[best] < value:
                current, value = candidates[best], float(scores[best])
            if value <= enough:
                return current
        if not value < before:
            break
    return current


def _variations(current: Bits, groups: WidthGroups, chosen: tuple[int, ...]) -> Bits:
    widths = [np.arange(groups.low[k], groups.high[k] + 1) for k in chosen]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*widths, indexing="ij")], axis=1)
    candidates = np.repeat(current[None, :], len(grid), axis=0)
    candidates[:, chosen] = grid
    return candidates


def _starts(groups: WidthGroups) -> Bits:
    low, high = groups.low, groups.high
    uniform = np.arange(low.min(initial=1), high.max(initial=1) + 1)[:, None]
    random = np.random.default_rng(0).integers(low, high + 1, size=(_RANDOM_STARTS, len(low)))
    return np.unique(np.concatenate([np.clip(uniform, low, high), random]), axis=0)
