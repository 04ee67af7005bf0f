"""A budget: the most that a cost may be."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal

import numpy as np

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.costs.protocol import BoundCost, Cost
from gfb_brevitas.costs.registry import cost_from_name
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.space import SearchSpace

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A cost must be at most ``beta`` times its value at a uniform allocation, or at most ``limit``.

    GradFreeBits states budgets in the first way, C_j(r) <= beta_j C_j(uniform T bits)
    (doi:10.3390/s22249772, Table 1). The uniform allocation is that of
    :meth:`gfb_brevitas.space.SearchSpace.uniform`: a quantizer that cannot take the width (a fixed
    first layer, say) takes the nearest one it can, in the reference too.

    Example:
        >>> from gfb_brevitas.costs import ActivationMemory, WeightSize
        >>> relative = Budget(cost=WeightSize(), beta=0.9, uniform_bits=(2, 4), rho=20.0)
        >>> absolute = Budget(cost=ActivationMemory(total="largest"), limit=64e3)

    Args:
        cost: What is limited: a cost, or the name of one that is registered, e.g. ``"weight_size"``.
        beta: Share of the uniform allocation's cost; 1 when not given.
        uniform_bits: Width of the uniform allocation in bits, or (weight bits, activation bits).
        limit: The limit in the cost's unit, instead of ``beta`` and ``uniform_bits``.
        rho: Weight of the violation in the objective's penalty. [ours] the default; the paper's
            values are in :func:`~gfb_brevitas.constraints.paper_budgets`.

    Raises:
        ConfigurationError: If both or neither kind of limit is given, or a number is out of range.
    """

    cost: Cost
    beta: float | None = None
    uniform_bits: int | tuple[int, int] | None = None
    limit: float | None = None
    rho: float = 10.0

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            cost: Cost | str,
            beta: float | None = None,
            uniform_bits: int | tuple[int, int] | None = None,
            limit: float | None = None,
            rho: float = 10.0,
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.cost, str):
            object.__setattr__(self, "cost", cost_from_name(self.cost))
        _require_cost(self.cost)
        if (self.limit is None) == (self.uniform_bits is None):
            raise ConfigurationError(
                f"The budget on {self.name} takes either `uniform_bits` (with `beta`) or `limit`; "
                f"got {'neither' if self.limit is None else 'both'}."
            )
        if self.limit is not None and self.beta is not None:
            raise ConfigurationError(
                f"`beta` is a share of a uniform allocation's cost; the budget on {self.name} has the "
                f"absolute limit {self.limit!r}. Leave one of them out."
            )
        self._require_positive("limit", self.limit)
        self._require_positive("beta", self.beta)
        if not (isinstance(self.rho, Real) and 0 <= self.rho < math.inf):
            raise ConfigurationError(
                f"`rho` of the budget on {self.name} must be a finite number of at least zero; "
                f"got {self.rho!r}."
            )
        if self.uniform_bits is not None:
            self._require_widths(self.uniform_bits)

    @staticmethod
    def board(
        board: str,
        *,
        fps: float | None = None,
        clock_mhz: float = 100.0,
        utilisation: float = 0.7,
        latency_us: float | None = None,
        standalone_thresholds: bool = False,
        folding: Literal["cheapest", "finn", "none"] = "cheapest",
        rho: float = 20.0,
    ) -> tuple[Budget, ...]:
        """What a board and a frame rate allow: one budget per resource, for the frame rate and the latency.

        Example:
            >>> [budget.name for budget in Budget.board("Pynq-Z1", fps=30_000)]
            ['lut', 'bram_18k', 'dsp', 'cycles']

        Args:
            board: Name of the board, e.g. ``"Pynq-Z1"``; see :data:`gfb_brevitas.hardware.boards.BOARDS`.
            fps: Samples per second to reach.
            clock_mhz: Clock frequency.
            utilisation: Share of each resource that may be used.
            latency_us: Longest latency in microseconds.
            standalone_thresholds: Whether activations become layers of their own, see
                :class:`~gfb_brevitas.dataflow.Target`.
            folding: How the parallelism of the layers is chosen, see :class:`~gfb_brevitas.dataflow.Target`.
            rho: Penalty weight of each budget.

        Raises:
            ConfigurationError: If there is no such board, or a number is not valid.
        """
        from gfb_brevitas.dataflow import Target, board_budgets  # they are made of budgets

        target = Target(
            board=board,
            fps=fps,
            clock_mhz=clock_mhz,
            standalone_thresholds=standalone_thresholds,
            folding=folding,
        )
        return board_budgets(target, utilisation=utilisation, latency_us=latency_us, rho=rho)

    def _require_positive(self, setting: str, value: float | None) -> None:
        if value is not None and not (isinstance(value, Real) and 0 < value < math.inf):
            raise ConfigurationError(
                f"`{setting}` of the budget on {self.name} must be a finite number above zero; got {value!r}."
            )

    def _require_widths(self, uniform_bits: object) -> None:
        widths = uniform_bits if isinstance(uniform_bits, (tuple, list)) else (uniform_bits, uniform_bits)
        if len(widths) != 2 or not all(
            isinstance(w, (int, np.integer)) and 1 <= w <= MAX_BITS for w in widths
        ):
            raise ConfigurationError(
                f"`uniform_bits` of the budget on {self.name} must be a whole number from 1 to {MAX_BITS}, "
                f"or two (weight bits, activation bits); got {uniform_bits!r}."
            )

    @property
    def name(self) -> str:
        """The cost's name."""
        return self.cost.name

    def resolve(self, space: SearchSpace, bound: BoundCost) -> float:
        """The limit in the cost's unit.

        Args:
            space: The search space, for the uniform allocation.
            bound: The cost, bound to the space's profile.

        Raises:
            ConfigurationError: If the uniform allocation's cost is not a number above zero.
        """
        if self.limit is not None:
            return float(self.limit)
        allocation = space.uniform(*self._widths)
        if space.coordinates and not set(allocation.values()) & set(self._widths):
            _logger.warning(
                "No quantizer may take the uniform %s that the budget on %s names: the nearest widths count.",
                *(self._uniform, self.name),
            )
        reference = float(bound(space.bits(allocation)[None, :])[0])
        if not 0 < reference < math.inf:
            raise ConfigurationError(
                f"The budget on {self.name} is a share of its value at the uniform allocation of "
                f"{self._uniform}, which must be a finite number above zero; it is {reference:g} "
                f"{self.cost.unit}. State an absolute `limit`, or leave the budget out."
            )
        return reference * (1.0 if self.beta is None else self.beta)

    def describe(self) -> str:
        """Where the limit comes from, for messages."""
        if self.limit is not None:
            return "absolute limit"
        return f"{1.0 if self.beta is None else self.beta:g} of the uniform allocation of {self._uniform}"

    @property
    def _widths(self) -> tuple[int, int]:
        assert self.uniform_bits is not None
        if isinstance(self.uniform_bits, (tuple, list)):
            return self.uniform_bits[0], self.uniform_bits[1]
        return self.uniform_bits, self.uniform_bits

    @property
    def _uniform(self) -> str:
        weight_bits, activation_bits = self._widths
        if weight_bits == activation_bits:
            return f"{weight_bits} bits"
        return f"{weight_bits} weight bits and {activation_bits} activation bits"


@dataclass(frozen=True, kw_only=True)
class BudgetUse:
    """How much of a budget an allocation uses.

    Attributes:
        name: The cost's name.
        value: The cost, in ``unit``.
        limit: The most it may be, in ``unit``.
        use: ``value / limit``.
        unit: The cost's unit.
        feasible: Whether the budget holds.
    """

    name: str
    value: float
    limit: float
    use: float
    unit: str
    feasible: bool


def _require_cost(cost: object) -> None:
    if isinstance(cost, type) or not isinstance(cost, Cost):
        raise ConfigurationError(
            f"A budget's cost must be an object with `name`, `unit`, `monotone` and `bind`, such as "
            f"WeightSize(), or the name of a registered one; got {cost!r}."
        )
