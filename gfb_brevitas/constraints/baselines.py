"""Widths that people choose without a search, as wide as the budgets allow: what a search is compared with.

Found from costs alone, nothing is trained. Rules, ranges and ties of the space hold here too: a quantizer
that may not take a width takes the nearest one that it may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.constraints.constraints import Constraints
from gfb_brevitas.profile import QuantizerKind
from gfb_brevitas.space import Coordinate, SearchSpace

BITS_AT_THE_ENDS = 8
"""Width that people leave the input, the first and the last layer at."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Fixed widths to compare a search with.

    Attributes:
        name: What it is called, e.g. ``"uniform 3"``.
        allocation: The widths.
    """

    name: str
    allocation: BitAllocation

    @property
    def folder(self) -> str:
        """The name as that of a folder, e.g. ``"uniform-3"``."""
        return "-".join(word for word in re.findall(r"\w+", self.name) if word != "and")


def uniform(space: SearchSpace, weight_bits: int, activation_bits: int | None = None) -> Baseline:
    """One width for all weights and one for all activations, by default the same."""
    return Baseline(
        name=f"uniform {_spoken(weight_bits, activation_bits)}",
        allocation=space.uniform(weight_bits, activation_bits),
    )


def widest_uniform(constraints: Constraints) -> Baseline | None:
    """The widest uniform widths, one of weights and one of activations, that keep all budgets.

    Of several pairs the one whose smaller width is largest, then the one with more bits in all, then the one
    with more bits of activations.

    Example:
        >>> widest_uniform(Constraints(space, paper_budgets(3)))  # doctest: +SKIP
        Baseline(name='uniform 2', ...)

    Args:
        constraints: The budgets, with the search space.

    Returns:
        The widths; ``None`` if no uniform widths keep the budgets.
    """
    space = constraints.space
    found = _widest(constraints, space.uniform)
    return None if found is None else uniform(space, *found)


def by_hand(constraints: Constraints) -> Baseline | None:
    """What people do by hand: input, first and last layer at 8 bits, the rest as wide as the budgets allow.

    The first and the last layer are those of the first and the last product with searched weights in the
    forward pass, each with the activations that it reads. The rest has one width of weights and one of
    activations, chosen as by :func:`widest_uniform`.

    Args:
        constraints: The budgets, with the search space.

    Returns:
        The widths; ``None`` if the budgets leave no room for 8 bits at both ends.
    """
    space = constraints.space
    at_ends = _at_ends(space)

    def widths(weight_bits: int, activation_bits: int) -> BitAllocation:
        between = space.bits(space.uniform(weight_bits, activation_bits))
        return space.allocation(space.nearest(np.where(at_ends, BITS_AT_THE_ENDS, between)))

    found = _widest(constraints, widths)
    if found is None:
        return None
    name = f"by hand ({BITS_AT_THE_ENDS}, {_spoken(*found)}, {BITS_AT_THE_ENDS})"
    return Baseline(name=name, allocation=widths(*found))


def _widest(
    constraints: Constraints, allocation: Callable[[int, int], BitAllocation]
) -> tuple[int, int] | None:
    pairs = sorted(_pairs(constraints.space), key=_order, reverse=True)
    bits = np.array([constraints.space.bits(allocation(*pair)) for pair in pairs])
    kept = np.flatnonzero(constraints.feasible(bits))
    if not len(kept):
        return None
    # Widths that no quantizer can take make the same allocation; its smallest name is the honest one.
    same = np.flatnonzero((bits == bits[kept[0]]).all(axis=1))
    return min((pairs[place] for place in same), key=_order)


def _order(pair: tuple[int, int]) -> tuple[int, int, int]:
    return min(pair), sum(pair), pair[1]


def _pairs(space: SearchSpace) -> list[tuple[int, int]]:
    """Widths of weights and of activations; one width for both where only one kind has a choice."""
    choices: dict[QuantizerKind, list[Coordinate]] = {"weight": [], "activation": []}
    for coordinate in space.free or space.coordinates:
        first = space.profile.quantizers[space.profile.column(coordinate.name)]
        choices[first.kind].append(coordinate)
    weights, activations = (_range(found) for found in choices.values())
    if weights and activations:
        return list(product(weights, activations))
    return [(width, width) for width in weights or activations]


def _range(coordinates: Sequence[Coordinate]) -> range:
    low = min((c.min_bits for c in coordinates), default=1)
    return range(low, max((c.max_bits for c in coordinates), default=0) + 1)


def _at_ends(space: SearchSpace) -> list[bool]:
    """Which quantizers are of the input, the first or the last layer, or share a width with one that is."""
    profile = space.profile
    weights = {info.name for info in profile if info.kind == "weight"}
    layers = [{*found.left.quantizers, *found.right.quantizers} for found in profile.products]
    layers = [quantizers for quantizers in layers if weights & quantizers]
    ends = set(profile.names[:1]).union(*layers[:1], *layers[-1:])
    tied = {name for c in space.coordinates if ends & set(c.quantizers) for name in c.quantizers}
    return [name in tied for name in profile.names]


def _spoken(weight_bits: int, activation_bits: int | None) -> str:
    if activation_bits is None or weight_bits == activation_bits:
        return f"{weight_bits}"
    return f"{weight_bits} and {activation_bits}"
