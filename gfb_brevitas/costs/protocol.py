"""What a cost is: the extension point that budgets are stated on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector

BoundCost = Callable[[Bits], Vector]
"""Costs of a population: bit widths of shape ``(P, quantizers)`` to costs of shape ``(P,)``."""


@runtime_checkable
class Cost(Protocol):
    """A number that a bit allocation costs.

    Any class with these four members is a cost; no base class is needed. One that also has
    ``parts(profile, bits)``, what each layer takes of the cost for one allocation of shape
    ``(quantizers,)``, has the largest one named where a budget cannot be met; an ``advice`` is added to that
    message.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)  # doctest: +SKIP
        ... class WidestWeight:
        ...     name: str = "widest_weight"
        ...     unit: str = "bits"
        ...     monotone: bool = True
        ...
        ...     def bind(self, profile):
        ...         columns = profile.columns("weight")
        ...         return lambda bits: bits[:, columns].max(axis=1).astype(float)
    """

    @property
    def name(self) -> str:
        """Name in reports and of the Optuna constraint; unique among the budgets of a search."""
        ...

    @property
    def unit(self) -> str:
        """Unit of the cost, e.g. ``"bits"`` or ``"us"``."""
        ...

    @property
    def monotone(self) -> bool:
        """Whether the cost never falls when a width rises; its smallest value is then known exactly."""
        ...

    def bind(self, profile: ModelProfile) -> BoundCost:
        """Precompute what depends on the model only.

        Args:
            profile: The model's quantizers and products.

        Returns:
            A function of bit widths, shape ``(P, quantizers)``, that returns costs, shape ``(P,)``.

        Raises:
            ConfigurationError: If the cost is not defined for this model.
        """
        ...
