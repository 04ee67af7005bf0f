"""Any function of an allocation as a cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.costs.protocol import BoundCost
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector


@dataclass(frozen=True, kw_only=True)
class CallableCost:
    """A cost computed by the user's function.

    Example:
        >>> cost = CallableCost(name="weights", unit="bits", function=lambda a: a["conv.weight_quant"])

    Args:
        name: Name in reports.
        unit: Unit in reports.
        function: ``function(allocation) -> number``; with ``vectorized``,
            ``function(bits, profile) -> numbers`` from shape ``(P, quantizers)`` to shape ``(P,)``.
        vectorized: Which of the two it is. One call per candidate is slow for large populations.
        monotone: State True only if the cost never falls when a width rises; the smallest
            reachable cost is then read off at the smallest widths and not searched for.

    Raises:
        ConfigurationError: If ``function`` cannot be called.
    """

    name: str
    unit: str
    function: Callable[..., Any]
    vectorized: bool = False
    monotone: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigurationError(
                f"The function of cost {self.name!r} must be callable; got {self.function!r}."
            )

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        The returned function raises ConfigurationError when the user's returns anything but one
        number (not NaN) per candidate.
        """
        return self._bind_vectorized(profile) if self.vectorized else self._bind_single(profile)

    def _bind_vectorized(self, profile: ModelProfile) -> BoundCost:
        def costs(bits: Bits) -> Vector:
            values = np.asarray(self.function(bits, profile))
            if values.shape != (len(bits),) or values.dtype.kind not in "iuf":
                raise ConfigurationError(
                    f"The function of cost {self.name!r} must return numbers of shape ({len(bits)},); "
                    f"got {values.dtype} of shape {values.shape}."
                )
            return values.astype(np.float64)

        return costs

    def _bind_single(self, profile: ModelProfile) -> BoundCost:
        def costs(bits: Bits) -> Vector:
            names = profile.names
            rows = (BitAllocation(dict(zip(names, row, strict=True))) for row in bits.tolist())
            return np.array([self._number(self.function(row), row) for row in rows], dtype=np.float64)

        return costs

    def _number(self, value: Any, allocation: BitAllocation) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isnan(number):
            raise ConfigurationError(
                f"The function of cost {self.name!r} must return a number; got {value!r} for {allocation}."
            )
        return number
