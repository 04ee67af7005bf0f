"""The Optuna study of one gradient-free step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.constraints.constraints import Standing
from gfb_brevitas.samplers import CmaSampler, CmaState
from gfb_brevitas.search.storages import quiet_optuna
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.space import Bits, SearchSpace, Vector

_CONSTRAINTS_OF_OPTUNA_4 = "constraints"
_LARGE = 1e18


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The candidates of one generation of CMA-ES, and what became of them.

    Attributes:
        bits: Shape ``(P, quantizers)``.
        losses: Shape ``(P,)``; NaN where not finite.
        values: Shape ``(P,)``, loss + penalty; infinite where the loss is not finite.
        feasible: Shape ``(P,)``.
    """

    bits: Bits
    losses: Vector
    values: Vector
    feasible: NDArray[np.bool_]


class StepStudy:
    """A study in memory that CMA-ES samples, with a copy of its trials in the user's storage.

    The copy is written generation by generation, in the background: see
    :class:`gfb_brevitas.search.trial_writer.TrialWriter`.

    Args:
        constraints: The budgets, and the search space.
        sampler: CMA-ES.
        name: Name of the study.
        writer: Writes into the user's storage, if there is one.

    Raises:
        ConfigurationError: If the user's storage holds a study of that name.
    """

    def __init__(
        self,
        constraints: Constraints,
        sampler: CmaSampler,
        *,
        name: str,
        writer: TrialWriter | None = None,
    ) -> None:
        self._constraints, self._space = constraints, constraints.space
        self._sampler, self._name, self._writer = sampler, name, writer
        self._distributions: dict[str, BaseDistribution] = dict(self._space.distributions())
        with quiet_optuna():
            memory = optuna.storages.InMemoryStorage()
            self._study = optuna.create_study(storage=memory, study_name=name, sampler=sampler)
        if writer is not None:
            writer.begin(name)

    def ask(self, size: int, replayed: Bits | None = None) -> tuple[list[optuna.Trial], Bits]:
        """Draw a generation of ``size`` candidates; bits of shape ``(size, quantizers)``.

        What was drawn before, ``replayed``, does not matter: equal seeds draw equal candidates.
        """
        trials = [self._study.ask() for _ in range(size)]
        # Not as suggested parameters: with many of them Optuna's checks take longer than the draws. What
        # is not stored of a draw the sampler takes to be as drawn.
        drawn = [trial.relative_params for trial in trials]
        names = [c.name for c in self._space.free]
        vectors = np.array([[params[name] for name in names] for params in drawn], dtype=np.float64)
        return trials, self._space.decode(vectors)

    def tell(self, trials: Sequence[optuna.Trial], bits: Bits, losses: Vector) -> Generation:
        """Pass a generation's losses to CMA-ES. A loss that is not finite is worse than every finite one."""
        generation, standing = judged(self._constraints, bits, losses)
        told = [
            self._study.tell(trial, value)
            for trial, value in zip(trials, generation.values.tolist(), strict=True)
        ]
        if self._writer is not None:
            for i, trial in enumerate(told):
                # On the copy: in the study every attribute would cost a deep copy of its trial.
                trial.params, trial.distributions = trials[i].relative_params, self._distributions
                annotate(trial, self._constraints, generation, standing, i)
            self._writer.add(self._name, told)
        return generation

    def stop_reason(self) -> str | None:
        """Why CMA-ES sees no use in another generation; ``None`` while it does."""
        return self._sampler.should_stop(self._study)

    def distribution(self) -> CmaState:
        """The distribution that the next generation would be drawn from."""
        return self._sampler.state(self._study)

    def mean_bits(self) -> Bits:
        """The distribution's mean as bits; shape ``(quantizers,)``."""
        mean = self.distribution().parameters
        return self._space.decode([mean[c.name] for c in self._space.free])


def judged(constraints: Constraints, bits: Bits, losses: Vector) -> tuple[Generation, Standing]:
    """A generation with its objective values, and how its candidates stand to the budgets.

    A loss that is not finite is worse than every finite one.
    """
    standing = constraints.standing(bits)
    values = losses + standing.penalty
    values = np.where(np.isfinite(values), values, math.inf)
    return Generation(bits=bits, losses=losses, values=values, feasible=standing.feasible), standing


def annotate(
    trial: FrozenTrial, constraints: Constraints, generation: Generation, standing: Standing, index: int
) -> None:
    """Say in a trial what became of candidate ``index`` of a generation."""
    trial.set_user_attr("bits", json.dumps(dict(constraints.space.allocation(generation.bits[index]))))
    trial.set_user_attr("loss", readable(float(generation.losses[index])))
    trial.set_user_attr("penalty", readable(float(standing.penalty[index])))
    trial.set_user_attr("feasible", bool(generation.feasible[index]))
    for name, excess in zip(constraints.names, standing.excess[index].tolist(), strict=True):
        trial.set_user_attr(f"violation_{name}", readable(max(excess, 0.0)))
    state_constraints(trial, constraints, standing.excess[index])


def state_constraints(trial: FrozenTrial, constraints: Constraints, excess: Vector) -> None:
    """State how a trial stands to the budgets, for Optuna and for optuna-dashboard.

    Args:
        trial: The trial.
        constraints: The budgets.
        excess: Shape ``(budgets,)``, C / limit - 1.
    """
    constraints.set_excess_on(trial, excess)
    # The form of Optuna 4, without which optuna-dashboard (0.21) takes every trial for feasible. Bounded: the
    # dashboard passes it on as JSON.
    trial.system_attrs[_CONSTRAINTS_OF_OPTUNA_4] = np.minimum(excess, _LARGE).tolist()


def make_sampler(
    space: SearchSpace,
    start: Bits,
    *,
    step_size: float,
    population_size: int,
    seed: int,
    distribution: CmaState | None = None,
) -> CmaSampler:
    """CMA-ES at the log2 of an allocation, or as a distribution that is carried over.

    Args:
        space: The search space.
        start: Shape ``(quantizers,)``, the allocation to start at.
        step_size: Standard deviation to start with, in log2 bits.
        population_size: Candidates per generation.
        seed: Seed of the draws.
        distribution: Carried over from an earlier step; then the mean is its own, and so is the step
            size unless it is below half of ``step_size``: widths are whole numbers, so a distribution
            that has contracted onto one allocation draws nothing else [ours].
    """
    settings = {
        "population_size": population_size,
        "search_space": space.distributions(),
        "seed": seed,
        "constraint_penalty": "ignore",  # the objective holds the penalty
    }
    if distribution is not None:
        widest = max(distribution.step_size, step_size / 2)
        return CmaSampler(distribution=distribution, step_size=widest, **settings)  # type: ignore[arg-type]
    vector = space.encode(space.allocation(start)).tolist()
    mean = {c.name: value for c, value in zip(space.free, vector, strict=True)}
    return CmaSampler(mean=mean, step_size=step_size, **settings)  # type: ignore[arg-type]


def readable(value: float) -> float | str:
    """A number as a database's JSON takes it, which has no NaN."""
    return value if math.isfinite(value) else str(value)
