"""What a cost is: the extension point that budgets are stated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector

BoundCost = Callable[[Bits], Vector]
"""Costs of a population: bit widths of shape ``(P, quantizers)`` to costs of shape ``(P,)``."""

Joining = Literal["sum", "largest", "longest path"]
"""How layers make up a cost: together, by the largest of them, or together along the longest path from the
input to the output (all of them, where layers are not side by side)."""

NO_LAYER = "(no layer)"
"""Stands for a layer where a part of a cost belongs to none: a constant, weights that are not searched."""


@runtime_checkable
class Cost(Protocol):
    """A number that a bit allocation costs.

    Any class with these four members is a cost; no base class is needed. One that can say more may be a
    :class:`LayeredCost`, too; an ``advice`` is added to the message that says that a budget cannot be met.

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


@runtime_checkable
class LayeredCost(Cost, Protocol):
    """A cost that says what each layer takes of it.

    The two members are optional: with them, the folder of a run keeps what each layer takes of the budget
    (``layer_costs.json``), the report draws it, and the layer that takes most is named where the budget
    cannot be met.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)  # doctest: +SKIP
        ... class WidestWeight:
        ...     ...
        ...     joined_by: str = "largest"
        ...
        ...     def parts(self, profile, bits):
        ...         return {profile.quantizers[j].name: float(bits[j]) for j in profile.columns("weight")}
    """

    @property
    def joined_by(self) -> Joining:
        """How the parts make up the cost."""
        ...

    def parts(self, profile: ModelProfile, bits: Bits) -> Mapping[str, float]:
        """What each layer takes, by its name, in the order of the forward pass.

        The sum of the parts, or the largest, is the cost; along the longest path, it is at most their sum.

        Args:
            profile: The model's quantizers and products.
            bits: One allocation, shape ``(quantizers,)``.
        """
        ...


@runtime_checkable
class HardwareCost(Cost, Protocol):
    """A cost of hardware, which can say what is built for an allocation."""

    def hardware(self, profile: ModelProfile, bits: Bits) -> Mapping[str, Any]:
        """What is built, as plain data for JSON; costs of the same hardware say the same.

        Args:
            profile: The model's quantizers and products.
            bits: One allocation, shape ``(quantizers,)``.
        """
        ...
