"""All budgets of a search together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfb_brevitas.constraints.budget import Budget, BudgetUse
from gfb_brevitas.constraints.descent import descend
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.constraints.reachability import SmallestCosts, closest, explain, smallest_costs
from gfb_brevitas.constraints.repair import give_back, lower
from gfb_brevitas.costs.searched_profile import searched_profile
from gfb_brevitas.errors import AllocationError, ConfigurationError, InfeasibleBudgetError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, SearchSpace, Vector

if TYPE_CHECKING:
    import optuna

PenaltyKind = Literal["exact", "squared"]

_TOLERANCE = 1e-12
_LARGE = 1e18


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How candidates stand to the budgets.

    Attributes:
        excess: Shape ``(P, budgets)``, C / limit - 1; zero or less where the budget holds.
        penalty: Shape ``(P,)``, what the objective adds to the loss.
        feasible: Shape ``(P,)``, whether all budgets hold.
    """

    excess: Vector
    penalty: Vector
    feasible: NDArray[np.bool_]


class Constraints:
    """The budgets of a search: costs, violations, penalty and feasibility of whole populations.

    Bit matrices have shape ``(P, quantizers)`` with columns as in ``space.profile``.

    Example:
        >>> constraints = Constraints(space, [Budget(cost=WeightSize(), limit=8e3)])  # doctest: +SKIP
        >>> constraints.feasible(space.decode(vectors))  # doctest: +SKIP
        array([ True, False])

    Args:
        space: The search space.
        budgets: The budgets; with none, everything is feasible.
        penalty: ``"exact"``: rho times the violation; ``"squared"``: rho times its square. [ours]
            both; the paper does not say.

    Raises:
        ConfigurationError: If two budgets have one name, or a cost or its uniform reference is not
            defined for the model.
    """

    def __init__(
        self, space: SearchSpace, budgets: Sequence[Budget] = (), penalty: PenaltyKind = "exact"
    ) -> None:
        if penalty not in get_args(PenaltyKind):
            raise ConfigurationError(f'`penalty` must be "exact" or "squared"; got {penalty!r}.')
        _require_budgets(budgets)
        self.space = space
        self.budgets = tuple(budgets)
        self.penalty_kind: PenaltyKind = penalty
        _require_distinct(self.names)
        self._profile = searched_profile(space)
        self._bound = [budget.cost.bind(self._profile) for budget in self.budgets]
        self._rho = np.array([budget.rho for budget in self.budgets], dtype=np.float64)
        self._limits = np.array(
            [budget.resolve(space, partial(self._cost, j)) for j, budget in enumerate(self.budgets)],
            dtype=np.float64,
        )

    def __reduce__(self) -> tuple[type[Constraints], tuple[SearchSpace, tuple[Budget, ...], PenaltyKind]]:
        # Bound costs are closures and cannot be pickled; they are bound again.
        return Constraints, (self.space, self.budgets, self.penalty_kind)

    def __len__(self) -> int:
        return len(self.budgets)

    @property
    def profile(self) -> ModelProfile:
        """The model's profile with the ranges and ties of the space, which the costs are bound to."""
        return self._profile

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the budgets' costs."""
        return tuple(budget.name for budget in self.budgets)

    @property
    def limits(self) -> Vector:
        """The most that each cost may be; shape ``(budgets,)``, in the costs' units."""
        return self._limits.copy()

    def costs(self, bits: ArrayLike) -> Vector:
        """Costs of candidates.

        Args:
            bits: Bit widths, shape ``(P, quantizers)``.

        Returns:
            Costs, shape ``(P, budgets)``, in the costs' units.

        Raises:
            AllocationError: If the matrix does not fit the model.
            ConfigurationError: If a cost returns something else than a number per candidate.
        """
        checked = np.asarray(bits, dtype=np.int64)
        if checked.ndim != 2 or checked.shape[1] != len(self.space.profile):
            raise AllocationError(
                f"Candidates of this model have shape (P, {len(self.space.profile)}); got {checked.shape}."
            )
        if not self.budgets:
            return np.empty((len(checked), 0))
        return np.stack([self._cost(j, checked) for j in range(len(self))], axis=1)

    def violations(self, bits: ArrayLike) -> Vector:
        """By which share each budget is exceeded, max(0, C / limit - 1).

        [ours] An excess within the rounding of floating point (1e-12 of the limit) is none, so a
        candidate is feasible exactly where all its violations are zero.

        Args:
            bits: Bit widths, shape ``(P, quantizers)``.

        Returns:
            Violations, shape ``(P, budgets)``.
        """
        return np.maximum(self._excess(bits), 0.0)

    def penalty(self, bits: ArrayLike) -> Vector:
        """What the objective adds to the loss, sum of rho times violation (or its square).

        Args:
            bits: Bit widths, shape ``(P, quantizers)``.

        Returns:
            Penalties, shape ``(P,)``.
        """
        return self.standing(bits).penalty

    def feasible(self, bits: ArrayLike) -> NDArray[np.bool_]:
        """Whether all budgets hold, C <= limit (1 + 1e-12).

        Args:
            bits: Bit widths, shape ``(P, quantizers)``.

        Returns:
            Shape ``(P,)``.
        """
        return self.standing(bits).feasible

    def standing(self, bits: ArrayLike) -> Standing:
        """Excess, penalty and feasibility of candidates, from one computation of their costs.

        Args:
            bits: Bit widths, shape ``(P, quantizers)``.
        """
        excess = self._excess(bits)
        violations = np.maximum(excess, 0.0)
        return Standing(
            excess=excess,
            penalty=(violations if self.penalty_kind == "exact" else violations**2) @ self._rho,
            feasible=np.all(excess <= 0, axis=1),
        )

    def report(self, bits: ArrayLike) -> list[BudgetUse]:
        """How much of each budget one allocation uses.

        Args:
            bits: Bit widths, shape ``(quantizers,)``.
        """
        row = np.asarray(bits)[None, ...]
        costs, excess = self.costs(row)[0].tolist(), self._excess(row)[0].tolist()
        return [
            BudgetUse(
                name=budget.name,
                value=value,
                limit=limit,
                use=value / limit,
                unit=budget.cost.unit,
                feasible=over <= 0,
            )
            for budget, value, limit, over in zip(
                self.budgets, costs, self._limits.tolist(), excess, strict=True
            )
        ]

    def set_on(self, trial: optuna.trial.BaseTrial, bits: ArrayLike) -> None:
        """State the constraints of a trial, C / limit - 1 each; Optuna reads zero or less as feasible.

        Args:
            trial: The trial that the allocation was suggested by.
            bits: Bit widths, shape ``(quantizers,)``.
        """
        self.set_excess_on(trial, self._excess(np.asarray(bits)[None, ...])[0])

    def set_excess_on(self, trial: optuna.trial.BaseTrial, excess: Vector) -> None:
        """As :meth:`set_on`, from a row of :attr:`Standing.excess`; shape ``(budgets,)``."""
        for name, over in zip(self.names, excess.tolist(), strict=True):
            trial.set_constraint(name, over)

    def check_reachable(self) -> None:
        """Check, before any training, that some allocation meets all budgets.

        The smallest cost is exact for monotone costs (all widths at their smallest). For others it
        is the smallest that descent over single widths and pairs of widths finds from several
        starts; the search is deterministic, but failing does not prove that there is none.

        Raises:
            InfeasibleBudgetError: Stating for every budget the limit, and the smallest reachable
                cost and its widths.
        """
        if self._violation(self._anchor[None, :])[0] == 0:
            return
        smallest = self._smallest
        reachable = (self._share_over(smallest.values) <= 0).tolist()
        message = explain(
            smallest, self._anchor, self.budgets, self._limits, reachable, self.space, self._groups
        )
        raise InfeasibleBudgetError(message)

    def idle(self) -> list[str]:
        """What there is to say of budgets that limit nothing: those that the largest widths keep, too.

        Only of costs that grow with every width; whether others can be exceeded is not known.
        """
        if not (self.budgets and self.space.coordinates):
            return []
        widest = self.space.uniform(max(c.max_bits for c in self.space.coordinates))
        costs = self.costs(self.space.bits(widest)[None, :])[0]
        return [
            f"The budget {budget.name!r} limits nothing: {limit:,.6g} {budget.cost.unit} are allowed, and "
            f"the largest widths come to {cost:,.6g}."
            for budget, limit, cost in zip(self.budgets, self._limits, costs, strict=True)
            if budget.cost.monotone and cost <= limit
        ]

    def repair(self, bits: ArrayLike) -> Bits:
        """A feasible allocation near one that is not.

        [ours] Coordinates are lowered greedily by violation per log2 of bits, then what was lowered
        in vain is given back; a feasible allocation is returned as it is. With monotone costs no
        width ever rises. With others one may, where lowering widths alone does not find a feasible
        allocation.

        Args:
            bits: Bit widths, shape ``(quantizers,)``, within the search space.

        Returns:
            Feasible bit widths, shape ``(quantizers,)``.

        Raises:
            AllocationError: If ``bits`` is not in the search space.
            InfeasibleBudgetError: If no feasible allocation is known.
        """
        allocation = self.space.check(self.space.allocation(bits))
        wanted = self._groups.collapse(self.space.bits(allocation))
        start = lower(wanted, self._groups, self._violation)
        if not self._feasible(start[None, :])[0]:
            start = descend(self._violation, self._groups, wanted)
        if not self._feasible(start[None, :])[0]:
            self.check_reachable()
            start = self._anchor
        return self._groups.expand(give_back(start, wanted, self._groups, self._feasible))

    @cached_property
    def _groups(self) -> WidthGroups:
        return WidthGroups(self.space)

    @cached_property
    def _anchor(self) -> Bits:
        """Group widths that meet all budgets, or come closest to it."""
        none = np.empty((0, len(self._groups.low)), dtype=np.int64)
        found = closest(self.budgets, self._groups, self._violation, none)
        if self._violation(found[None, :])[0] > 0:
            found = closest(self.budgets, self._groups, self._violation, self._smallest.at)
        return found

    @cached_property
    def _smallest(self) -> SmallestCosts:
        expand = self._groups.expand
        costs = [lambda groups, j=j: self._cost(j, expand(groups)) for j in range(len(self))]
        return smallest_costs(self.budgets, self._groups, costs)

    def _cost(self, j: int, bits: Bits) -> Vector:
        values = np.asarray(self._bound[j](bits), dtype=np.float64)
        if values.shape != (len(bits),) or np.isnan(values).any():
            raise ConfigurationError(
                f"Cost {self.names[j]!r} must return one number per candidate, of shape ({len(bits)},); "
                f"got {values}."
            )
        return values

    def _share_over(self, costs: Vector) -> Vector:
        excess: Vector = costs / self._limits - 1.0
        excess[(costs <= self._limits * (1.0 + _TOLERANCE)) & (excess > 0)] = 0.0
        return excess

    def _excess(self, bits: ArrayLike) -> Vector:
        return self._share_over(self.costs(bits))

    def _violation(self, groups: Bits) -> Vector:
        # Bounded, so that differences of infinite costs are numbers.
        violations = self.violations(self._groups.expand(groups))
        total: Vector = np.minimum(violations.sum(axis=1), _LARGE)
        return total

    def _feasible(self, groups: Bits) -> NDArray[np.bool_]:
        return self.feasible(self._groups.expand(groups))


def _require_budgets(budgets: object) -> None:
    if not isinstance(budgets, Sequence) or not all(isinstance(budget, Budget) for budget in budgets):
        raise ConfigurationError(
            f"`budgets` must be a list or tuple of Budget objects, such as paper_budgets(4); got {budgets!r}."
        )


def _require_distinct(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigurationError(
            f"Two budgets are named {repeated[0]!r}; give one of the costs another `name`."
        )
