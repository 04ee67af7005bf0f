"""The Optuna study of one gradient-free step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.samplers import CmaSampler, CmaState
from gfb_brevitas.space import Bits, SearchSpace, Vector

Storage = str | optuna.storages.BaseStorage
RUN_ATTRIBUTE = "gfb_run"
"""User attribute of a study that holds the id of the run that it belongs to."""


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

    Trials are copied generation by generation: a database then needs one write where asking and
    telling every trial in it needs many.

    Args:
        constraints: The budgets, and the search space.
        sampler: CMA-ES.
        name: Name of the study.
        storage: The user's storage, if any.
        run_id: Id of the run, which the study in the user's storage is marked with.

    Raises:
        ConfigurationError: If the user's storage holds a study of that name.
    """

    def __init__(
        self,
        constraints: Constraints,
        sampler: CmaSampler,
        *,
        name: str,
        storage: optuna.storages.BaseStorage | None,
        run_id: str | None = None,
    ) -> None:
        self._constraints, self._space = constraints, constraints.space
        self._sampler = sampler
        self._distributions = dict(self._space.distributions())
        with _quiet_optuna():
            memory = optuna.storages.InMemoryStorage()
            self._study = optuna.create_study(storage=memory, study_name=name, sampler=sampler)
            self._copy = None if storage is None else _new_study(storage, name, run_id)

    def ask(self, size: int) -> tuple[list[optuna.Trial], Bits]:
        """Draw a generation of ``size`` candidates; bits of shape ``(size, quantizers)``."""
        trials = [self._study.ask(dict(self._distributions)) for _ in range(size)]
        names = [c.name for c in self._space.free]
        parameters = [trial.params for trial in trials]  # every access is a deep copy
        vectors = np.array([[params[name] for name in names] for params in parameters], dtype=np.float64)
        return trials, self._space.decode(vectors)

    def tell(self, trials: Sequence[optuna.Trial], bits: Bits, losses: Vector) -> Generation:
        """Pass a generation's losses to CMA-ES. A loss that is not finite is worse than every finite one."""
        standing = self._constraints.standing(bits)
        penalties, feasible = standing.penalty, standing.feasible
        values = np.where(np.isfinite(losses + penalties), losses + penalties, math.inf)
        for i, trial in enumerate(trials):
            trial.set_user_attr("bits", json.dumps(dict(self._space.allocation(bits[i]))))
            trial.set_user_attr("loss", _readable(float(losses[i])))
            trial.set_user_attr("penalty", _readable(float(penalties[i])))
            trial.set_user_attr("feasible", bool(feasible[i]))
            self._constraints.set_excess_on(trial, standing.excess[i])
        told = [self._study.tell(trial, value) for trial, value in zip(trials, values.tolist(), strict=True)]
        if self._copy is not None:
            self._copy.add_trials(told)
        return Generation(bits=bits, losses=losses, values=values, feasible=feasible)

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


def opened_storage(storage: Storage | None) -> optuna.storages.BaseStorage | None:
    """The storage that a URL names.

    Raises:
        ConfigurationError: If it cannot be opened.
    """
    if storage is None or isinstance(storage, optuna.storages.BaseStorage):
        return storage
    if not isinstance(storage, str):
        raise ConfigurationError(
            f"`storage` must be an Optuna storage or its URL, such as 'sqlite:///run.db'; got {storage!r}."
        )
    try:
        return optuna.storages.get_storage(storage)
    except Exception as error:  # of whichever database driver
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"The storage {storage!r} cannot be opened: {reason}. Check the URL, that its folder exists and "
            "that the driver of the database is installed."
        ) from error


def delete_studies(storage: optuna.storages.BaseStorage, names: Sequence[str], run_id: str) -> None:
    """Delete those studies of a run that exist, so that it can write them again when it is resumed.

    Raises:
        ConfigurationError: If a study of that name is another run's; nothing is deleted then.
    """
    existing = sorted(set(optuna.get_all_study_names(storage)) & set(names))
    for name in existing:
        attributes = storage.get_study_user_attrs(storage.get_study_id_from_name(name))
        if attributes.get(RUN_ATTRIBUTE) != run_id:
            raise ConfigurationError(
                f"The storage holds a study {name!r} of another run. Give the resumed run another `name` or "
                "`storage`, or delete the study."
            )
    for name in existing:
        optuna.delete_study(study_name=name, storage=storage)


def require_no_studies(storage: optuna.storages.BaseStorage, names: Sequence[str]) -> None:
    """Check that a new run does not mix with an old one.

    Raises:
        ConfigurationError: If a study of that name exists.
    """
    existing = sorted(set(optuna.get_all_study_names(storage)) & set(names))
    if existing:
        raise ConfigurationError(_exists_already(existing[0]))


def _new_study(storage: optuna.storages.BaseStorage, name: str, run_id: str | None) -> optuna.Study:
    try:
        study = optuna.create_study(storage=storage, study_name=name)
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ConfigurationError(_exists_already(name)) from error
    if run_id is not None:
        study.set_user_attr(RUN_ATTRIBUTE, run_id)
    return study


def _exists_already(name: str) -> str:
    return (
        f"The storage holds a study {name!r} already. Give the run another `name`, delete the study, or "
        "resume the run that it belongs to."
    )


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Without the message that Optuna prints for every new study."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _readable(value: float) -> float | str:
    # A database's JSON has no NaN.
    return value if math.isfinite(value) else str(value)
