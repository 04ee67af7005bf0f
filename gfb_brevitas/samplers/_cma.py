"""The CMA-ES sampler for Optuna studies."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.samplers._coordinates import Coordinates, Numerical, is_searchable
from gfb_brevitas.samplers._independent import UniformSampler
from gfb_brevitas.samplers._ranking import ConstraintPenalty
from gfb_brevitas.samplers._records import Ledger, digest, draw_attributes, update_attributes
from gfb_brevitas.samplers._run import Run
from gfb_brevitas.samplers._state import CmaState, initial_state
from gfb_brevitas.samplers._strategy import Strategy, default_population_size

_SMALLEST_POPULATION = 3  # of which one parent remains


class _Book:
    """What a sampler keeps in memory about one study; all of it can be read again from the storage."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.intersection = IntersectionSearchSpace()
        self.runs: dict[str, Run] = {}
        self.latest: tuple[dict[str, Numerical], Run] | None = None


class CmaSampler(optuna.samplers.BaseSampler):
    """Samples all numerical parameters together from an adapted normal distribution (CMA-ES, by pycma).

    What counts as a generation. A trial is drawn from the distribution as it is when the trial asks for
    its parameters; nothing waits. As soon as a population of trials is complete of which at least half
    come from the present distribution, the next trial to ask makes them all into an update, those that
    finished late from earlier distributions included (as pycma's injected solutions). So every complete
    trial is used once, in whatever order and however many at a time they finish. Failed and pruned
    trials take no part and hold up nothing. Infinite values rank behind (or before) the finite ones.

    What is stored. A trial's random numbers depend on the seed and on its number only, and updates are
    recorded in the trials' system attributes as lists of trial numbers. A new sampler with equal
    arguments that meets the study in its storage goes on with exactly the draws that an undisturbed run
    would have made. Several processes may share a study. A process that dies inside a trial leaves a
    running trial that takes no part; the run goes on as if that trial had failed. (To lose nothing,
    evaluate its stored parameters and ``study.tell(number, value)``.) A sampler with other arguments
    begins its own run in the same study.

    Which trials do not count: those not drawn by this run, whether enqueued with all parameters or
    added with ``study.add_trial``; start from a known point with ``mean`` instead. A trial that was
    drawn but has some other parameters (partly enqueued, ``PartialFixedSampler``) is used with those
    that it has.

    Categorical parameters, and parameters outside the search space, go to the independent sampler.

    Example:
        >>> import optuna
        >>> from gfb_brevitas.samplers import CmaSampler
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> space = {name: optuna.distributions.FloatDistribution(0.0, 3.0) for name in ("conv", "fc")}
        >>> sampler = CmaSampler(search_space=space, mean={"conv": 2.0, "fc": 2.0}, step_size=0.5, seed=1)
        >>> study = optuna.create_study(sampler=sampler)
        >>> study.optimize(
        ...     lambda trial: sum((trial.suggest_float(n, 0.0, 3.0) - 1.0) ** 2 for n in space), n_trials=60
        ... )
        >>> study.best_value < 0.02, sampler.generation(study)
        (True, 10)

    Args:
        mean: Where to start, for every searched parameter, in the parameters' own units. Default: the
            middle of each range (the geometric one where it is logarithmic).
        step_size: Standard deviation to start with, the same for all parameters, in the parameters'
            own units (log2 bits for a bit allocation), or of the natural logarithm where a
            distribution is logarithmic. Default: a sixth of each parameter's range.
        population_size: Number of trials in an update, at least 3. Default: 4 + floor(3 ln n).
        search_space: Distributions by name. The first trial is then drawn around ``mean`` already.
            Default: the parameters that all complete trials have in common, from the second trial on.
        independent_sampler: For parameters that CMA-ES does not search. Default: uniform.
        seed: Non-negative. Default: a random one; it is stored with the trials that it drew.
        constraint_penalty: What ``trial.set_constraint`` does to the ranks. ``"feasible-first"``:
            infeasible trials rank behind all feasible ones, by the sum of their positive constraint
            values, then by value. ``"ignore"``: nothing, for objectives that contain a penalty as that of
            GradFreeBits does.
        distribution: Continue from a distribution of an earlier study over the same parameters (see
            :meth:`state`). ``mean`` and ``step_size``, when given too, take precedence over its own.

    Raises:
        ConfigurationError: If an argument is outside its rule.

    References:
        CMA-ES: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772. Injection: Hansen,
        "Injecting External Solutions Into CMA-ES", arXiv:1110.4181. Its use for bit allocation:
        Bodner et al., 2022, doi:10.3390/s22249772. The treatment of parallel, late and failed trials
        is [ours].
    """

    def __init__(
        self,
        *,
        mean: Mapping[str, float] | None = None,
        step_size: float | None = None,
        population_size: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
        independent_sampler: optuna.samplers.BaseSampler | None = None,
        seed: int | None = None,
        constraint_penalty: ConstraintPenalty = "feasible-first",
        distribution: CmaState | None = None,
    ) -> None:
        _check(step_size, population_size, seed, constraint_penalty)
        _check_mean(mean)
        _check_space({} if search_space is None else search_space)
        if distribution is not None and not isinstance(distribution, CmaState):
            raise ConfigurationError(
                f"distribution must be a CmaState (see CmaSampler.state) or None; got {distribution!r}."
            )
        self._mean = None if mean is None else {name: float(value) for name, value in mean.items()}
        self._step_size = None if step_size is None else float(step_size)
        self._population_size = None if population_size is None else int(population_size)
        self._search_space = None if search_space is None else dict(search_space)
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._independent_sampler = independent_sampler or UniformSampler(self._seed)
        self._constraint_penalty: ConstraintPenalty = constraint_penalty
        self._distribution = distribution
        if self._search_space is not None:
            self._first_state(Coordinates(_searchable(self._search_space)))
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is read again from the storage."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_books")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def state(self, study: optuna.Study) -> CmaState:
        """The distribution that the next trial would be drawn from.

        Raises:
            ConfigurationError: If it is not yet known what is searched: no search space was given, and
                no trial is complete.
        """
        with self._lock:
            run = self._present_run(study)
            if run is None:
                raise ConfigurationError(
                    "There is no distribution yet: the study has no complete trial with a numerical "
                    "parameter of more than one value. Give the sampler a search_space, or run a trial."
                )
            return run.preview().state()

    def generation(self, study: optuna.Study) -> int:
        """Updates so far, those of a distribution that was carried over included."""
        with self._lock:
            run = self._present_run(study)
            return 0 if run is None else run.preview().generation

    def should_stop(self, study: optuna.Study) -> str | None:
        """Names of pycma's termination criteria that hold after the last update, or None.

        For example ``"tolfunhist, tolx"``; see ``cma.CMAOptions("tol")`` for what each means. On an
        objective that rounds, ``"tolflatfitness"`` says that most of two populations in a row tied.
        """
        with self._lock:
            run = self._present_run(study)
            return None if run is None else ", ".join(run.preview().stop_reasons) or None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The numerical parameters with more than one value."""
        with self._lock:
            return dict(self._space(study))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw from the present distribution, after the update that may be due."""
        self._raise_error_if_multi_objective(study)
        searched = _searchable(search_space)
        parameters: dict[str, Any] = {
            name: self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
            if name not in searched
        }
        if not searched:
            return parameters
        with self._lock:
            run = self._run(study, searched)
            self._update(study, trial, run)
            draw, drawn = run.draw(self._seed, trial.number)
            _write(study, trial, draw_attributes(draw))
        return {**parameters, **drawn}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Ask the independent sampler."""
        self._raise_error_if_multi_objective(study)
        return self._independent_sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Tell the independent sampler."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the independent sampler."""
        self._independent_sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Reseed the independent sampler; CMA-ES' own draws differ by the trials' numbers."""
        self._independent_sampler.reseed_rng()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._books: WeakKeyDictionary[optuna.Study, _Book] = WeakKeyDictionary()

    def _book(self, study: optuna.Study) -> _Book:
        book = self._books.get(study)
        if book is None:
            book = self._books[study] = _Book()
        return book

    def _space(self, study: optuna.Study) -> dict[str, Numerical]:
        if self._search_space is not None:
            return _searchable(self._search_space)
        return _searchable(self._book(study).intersection.calculate(study))

    def _present_run(self, study: optuna.Study) -> Run | None:
        self._raise_error_if_multi_objective(study)
        space = self._space(study)
        return self._run(study, space) if space else None

    def _run(self, study: optuna.Study, space: dict[str, Numerical]) -> Run:
        """The run over a space, with all updates that are on record."""
        book = self._book(study)
        if book.latest is None or book.latest[0] != space:
            book.latest = space, self._find_run(study, book, space)
        run = book.latest[1]
        book.ledger.refresh(study)
        run.follow(book.ledger)
        return run

    def _find_run(self, study: optuna.Study, book: _Book, space: dict[str, Numerical]) -> Run:
        coordinates = Coordinates(space)
        size = self._population_size or default_population_size(len(coordinates))
        name = digest(
            *(f"{name} {distribution_to_json(d)}" for name, d in coordinates.space.items()),
            json.dumps(
                [self._mean, self._step_size, size, self._constraint_penalty, study.direction.name],
                sort_keys=True,
            ),
            "" if self._distribution is None else self._distribution.to_json(),
        )
        if name not in book.runs:
            state = self._first_state(coordinates)
            book.runs[name] = Run(
                name, lambda: Strategy(coordinates, state, size), study.direction, self._constraint_penalty
            )
        return book.runs[name]

    def _update(self, study: optuna.Study, trial: FrozenTrial, run: Run) -> None:
        update = run.due()
        if update is not None:
            _write(study, trial, update_attributes(update))
            self._book(study).ledger.enter(trial.number, update)
            run.make(update)

    def _first_state(self, coordinates: Coordinates) -> CmaState:
        center = (coordinates.lower + coordinates.upper) / 2
        if self._distribution is None:
            point = center if self._mean is None else coordinates.encode(self._checked_mean(coordinates))
            return initial_state(coordinates, point, self._step_size)
        carried = self._distribution.ordered(coordinates.names)
        return carried.moved(
            mean=None if self._mean is None else self._checked_mean(coordinates), step_size=self._step_size
        )

    def _checked_mean(self, coordinates: Coordinates) -> dict[str, float]:
        mean = self._mean or {}
        missing = set(coordinates.names) - set(mean)
        unknown = set() if self._search_space is None else set(mean) - set(self._search_space)
        if missing or unknown:
            raise ConfigurationError(
                "The mean must have a value for every searched parameter and no other; missing: "
                f"{sorted(missing)}, unknown: {sorted(unknown)}."
            )
        for name, distribution in coordinates.space.items():
            if not distribution.low <= mean[name] <= distribution.high:
                raise ConfigurationError(
                    f"The mean of {name!r} must be from {distribution.low} to {distribution.high}; "
                    f"got {mean[name]}."
                )
        return mean


def _searchable(space: Mapping[str, BaseDistribution]) -> dict[str, Numerical]:
    return {name: d for name, d in space.items() if is_searchable(d)}


def _write(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, str]) -> None:
    for key, text in attributes.items():
        # Samplers have no other way to attach something to a trial.
        study._storage.set_trial_system_attr(trial._trial_id, key, text)


def _check_mean(mean: object) -> None:
    if mean is None:
        return
    if not isinstance(mean, Mapping) or not all(isinstance(value, Real) for value in mean.values()):
        raise ConfigurationError(f"mean must map parameter names to numbers; got {mean!r}.")


def _check_space(space: object) -> None:
    if not isinstance(space, Mapping):
        raise ConfigurationError(
            f"search_space must map parameter names to Optuna distributions; got {space!r}."
        )
    for name, distribution in space.items():
        if not isinstance(distribution, BaseDistribution):
            raise ConfigurationError(
                f"search_space must hold Optuna distributions; got {distribution!r} for {name!r}."
            )


def _check(
    step_size: float | None, population_size: int | None, seed: int | None, constraint_penalty: str
) -> None:
    if step_size is not None and not (isinstance(step_size, Real) and 0 < step_size < math.inf):
        raise ConfigurationError(f"step_size must be a positive number or None; got {step_size!r}.")
    for name, value, least in (("population_size", population_size, _SMALLEST_POPULATION), ("seed", seed, 0)):
        if value is not None and not (isinstance(value, Integral) and value >= least):
            raise ConfigurationError(
                f"{name} must be a whole number of at least {least} or None; got {value!r}."
            )
    if constraint_penalty not in get_args(ConstraintPenalty):
        raise ConfigurationError(
            f"constraint_penalty must be one of {get_args(ConstraintPenalty)}; got {constraint_penalty!r}."
        )
