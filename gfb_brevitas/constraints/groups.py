"""Widths per coordinate (group of tied quantizers), on which budgets are searched and repaired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gfb_brevitas.space import Bits, SearchSpace, Vector

GroupScore = Callable[[Bits], Vector]
"""Scores of shape ``(P,)`` of group widths of shape ``(P, coordinates)``."""


class WidthGroups:
    """The coordinates of a space as arrays.

    Attributes:
        low: Smallest widths, shape ``(coordinates,)``.
        high: Largest widths, shape ``(coordinates,)``.
        of_quantizers: The coordinate of each quantizer, shape ``(quantizers,)``.
    """

    def __init__(self, space: SearchSpace) -> None:
        coordinates = space.coordinates
        self.low = np.array([c.min_bits for c in coordinates], dtype=np.int64)
        self.high = np.array([c.max_bits for c in coordinates], dtype=np.int64)
        group = {name: k for k, c in enumerate(coordinates) for name in c.quantizers}
        self.of_quantizers = np.array([group[name] for name in space.profile.names], dtype=np.int64)
        self._first = np.array([space.profile.column(c.name) for c in coordinates], dtype=np.int64)

    def expand(self, groups: Bits) -> Bits:
        """Group widths, shape ``(..., coordinates)``, to bit widths, shape ``(..., quantizers)``."""
        return groups[..., self.of_quantizers]

    def collapse(self, bits: Bits) -> Bits:
        """Bit widths, shape ``(..., quantizers)``, to group widths, shape ``(..., coordinates)``."""
        return bits[..., self._first]

    def moves(self, start: Bits, target: Bits) -> Bits:
        """All group widths that differ from ``start`` in one coordinate, moved towards ``target``.

        Args:
            start: Shape ``(coordinates,)``.
            target: Shape ``(coordinates,)``; a coordinate moves by one bit up to all the way.

        Returns:
            Shape ``(moves, coordinates)``; by coordinate, the shortest move first.
        """
        lengths = np.abs(target - start)
        coordinate = np.repeat(np.arange(len(start)), lengths)
        length = np.concatenate([np.arange(1, n + 1) for n in lengths]) if len(coordinate) else coordinate
        moved = np.repeat(start[None, :], len(coordinate), axis=0)
        moved[np.arange(len(coordinate)), coordinate] += length * np.sign(target - start)[coordinate]
        return moved
