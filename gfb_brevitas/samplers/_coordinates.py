"""The box that CMA-ES searches: Optuna's numerical parameters as one vector of real coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Numerical = FloatDistribution | IntDistribution

_MARGIN = 0.05  # of a coordinate's width; where the folding bends instead of being the identity


def is_searchable(distribution: BaseDistribution) -> TypeGuard[Numerical]:
    """Whether CMA-ES can move along a distribution: a number with more than one value."""
    return isinstance(distribution, FloatDistribution | IntDistribution) and not distribution.single()


class Coordinates:
    """One real coordinate per parameter, in the order of the names.

    A coordinate is the parameter itself, or its natural logarithm where the distribution is
    logarithmic. Parameters with a step own the half step on either side, so every value has a cell of
    equal width. CMA-ES moves without bounds; :meth:`fold` bends its plane into the box.

    Args:
        space: Numerical distributions by name.
    """

    def __init__(self, space: Mapping[str, Numerical]) -> None:
        self.space = dict(sorted(space.items()))
        self.names = tuple(self.space)
        bounds = np.array([_bounds(d) for d in self.space.values()], dtype=np.float64).reshape(-1, 2)
        self.lower: Vector = bounds[:, 0]
        self.upper: Vector = bounds[:, 1]
        self.widths: Vector = self.upper - self.lower
        self.steps: Vector = np.array(
            [0.0 if d.log else float(d.step or 0.0) for d in self.space.values()], dtype=np.float64
        )
        self._margins = _MARGIN * self.widths
        self._low, self._high = self.lower - self._margins, self.upper + self._margins

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, parameters: Mapping[str, float], default: Vector | None = None) -> Vector:
        """The point of the box for parameters, shape ``(n,)``; names that are missing take ``default``."""
        values = self.upper * np.nan if default is None else default.copy()
        for i, (name, distribution) in enumerate(self.space.items()):
            if name in parameters:
                value = float(parameters[name])
                values[i] = math.log(max(value, 5e-324)) if distribution.log else value
        return np.clip(values, self.lower, self.upper)

    def decode(self, point: Vector) -> dict[str, float | int]:
        """The parameters nearest to a point of the box; they satisfy their distributions."""
        return {
            name: _nearest_value(distribution, x)
            for (name, distribution), x in zip(self.space.items(), point.tolist(), strict=True)
        }

    def unrounded(self, point: Vector) -> Vector:
        """A point of the box in the parameters' own units, without rounding to steps; shape ``(n,)``."""
        logarithmic = [d.log for d in self.space.values()]
        return np.asarray(np.where(logarithmic, np.exp(np.where(logarithmic, point, 0.0)), point))

    def fold(self, free: Vector) -> Vector:
        """Bend unbounded points ``(..., n)`` into the box.

        The map is periodic and continuously differentiable: the identity except within 5 % of a bound,
        quadratic there, mirrored outside (the idea of pycma's ``BoundTransform``, here with margins
        that do not depend on where zero lies).
        """
        span = self._high - self._low
        t = self._high - np.abs((free - self._low) % (2 * span) - span)
        room = np.where(self._margins > 0, 4 * self._margins, 1.0)
        bent = np.where(t < self.lower + self._margins, self.lower + (t - self._low) ** 2 / room, t)
        bent = np.where(t > self.upper - self._margins, self.upper - (self._high - t) ** 2 / room, bent)
        return np.asarray(np.clip(bent, self.lower, self.upper))

    def unfold(self, point: Vector) -> Vector:
        """The point nearest to the box that :meth:`fold` maps to a point of the box."""
        below = self._low + 2 * np.sqrt(self._margins * np.maximum(point - self.lower, 0.0))
        above = self._high - 2 * np.sqrt(self._margins * np.maximum(self.upper - point, 0.0))
        free = np.where(point < self.lower + self._margins, below, point)
        return np.asarray(np.where(point > self.upper - self._margins, above, free))

    def unfold_near(self, point: Vector, free: Vector) -> Vector:
        """Of all points that :meth:`fold` maps to ``point``, the one nearest to ``free``."""
        period = 2 * (self._high - self._low)
        direct = self.unfold(point)
        images = np.stack([direct, 2 * self._high - direct])
        images = images + period * np.round((free - images) / period)
        return np.asarray(np.where(np.abs(images[0] - free) <= np.abs(images[1] - free), *images))

    def mirrored(self, free: Vector) -> NDArray[np.bool_]:
        """Where an unbounded point lies on a mirrored stretch of the folding."""
        span = self._high - self._low
        return np.asarray((free - self._low) % (2 * span) > span)


def _bounds(distribution: Numerical) -> tuple[float, float]:
    low, high = float(distribution.low), float(distribution.high)
    half = float(distribution.step or 0.0) / 2
    low, high = low - half, high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _nearest_value(distribution: Numerical, x: float) -> float | int:
    value = math.exp(x) if distribution.log else x
    if distribution.step is not None:
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-8)
        k = min(max(round((value - distribution.low) / distribution.step), 0), count)
        value = distribution.low + k * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
