"""A gradient-free step whose candidates a surrogate chooses [ours].

The first generation holds the incumbent and allocations that a sensitivity estimate suggests, one as it is
and others for randomly weighted quantizers. From then on every generation holds what the surrogate of the
loss expects most of. CMA-ES's distribution follows all of them and can be carried on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.constraints.constraints import Standing
from gfb_brevitas.evaluation.randomness import derive_seed
from gfb_brevitas.samplers import CmaState
from gfb_brevitas.samplers._coordinates import Coordinates
from gfb_brevitas.samplers._state import initial_state
from gfb_brevitas.samplers._strategy import Strategy
from gfb_brevitas.search.study import Generation, annotate, judged
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.sensitivity import Allocator, SensitivityTable
from gfb_brevitas.space import Bits, Vector
from gfb_brevitas.surrogate import Proposals

_WEIGHT_SPREAD = 0.7  # standard deviation of log weights of quantizers in the first generation
_DRAWS = 4  # draws from the distribution, per candidate, where there are too few others
_WORST = 1e300  # in place of infinity, which pycma does not rank


class GuidedStudy:
    """Asks a surrogate for candidates; has the methods of :class:`gfb_brevitas.search.study.StepStudy`.

    Args:
        constraints: The budgets, and the search space.
        start: Shape ``(quantizers,)``, the allocation to start at; need not be feasible.
        sensitivity: Makes the sensitivity estimate, if there is one; called when it is needed.
        name: Name of the study.
        seed: Seed of all draws.
        step_size: Standard deviation of the distribution to start with, in log2 bits.
        population_size: Candidates per generation.
        overlap: In how many generations a minibatch takes part; 0 when the super-batch stays.
        distribution: Carried over from an earlier step.
        writer: Writes into the user's storage, if there is one.
    """

    def __init__(
        self,
        constraints: Constraints,
        start: Bits,
        sensitivity: Callable[[], SensitivityTable | None],
        *,
        name: str,
        seed: int,
        step_size: float,
        population_size: int,
        overlap: int = 0,
        distribution: CmaState | None = None,
        writer: TrialWriter | None = None,
    ) -> None:
        self._constraints, self._space = constraints, constraints.space
        self._start, self._sensitivity, self._name, self._seed = start, sensitivity, name, seed
        self._distributions: dict[str, BaseDistribution] = dict(self._space.distributions())
        self._coordinates = Coordinates(self._space.distributions())
        self._strategy = self._new_strategy(step_size, population_size, distribution)
        self._proposals = Proposals(constraints, overlap=overlap)
        self._waiting: list[tuple[Vector, float]] = []
        self._generation, self._exhausted, self._writer = 0, False, writer
        if writer is not None:
            writer.begin(name)

    def ask(self, size: int, replayed: Bits | None = None) -> tuple[list[optuna.Trial], Bits]:
        """Choose a generation of at most ``size`` candidates; bits of shape ``(P, quantizers)``.

        Args:
            size: Candidates wanted.
            replayed: What was chosen when the generation was evaluated before, if it was.
        """
        if replayed is not None:
            return [], replayed
        rng = np.random.default_rng(derive_seed(self._seed, self._generation))
        chosen = self._first(size, rng) if self._generation == 0 else self._proposals.propose(size, rng)
        chosen = _each_once(chosen)
        if len(chosen) < size:
            drawn = _each_once(np.concatenate([chosen, self._drawn(_DRAWS * size, rng)]))
            chosen = self._proposals.unknown(drawn)
            if not len(chosen):
                return [], drawn[:1]
        return [], chosen[:size]

    def tell(self, trials: Sequence[optuna.Trial], bits: Bits, losses: Vector) -> Generation:
        """Pass a generation's losses to the surrogate and to the distribution."""
        generation, standing = judged(self._constraints, bits, losses)
        self._exhausted = not len(self._proposals.unknown(bits))
        self._proposals.add(bits, losses, self._generation)
        self._generation += 1
        self._follow(bits, generation.values)
        if self._writer is not None:
            self._writer.add(self._name, self._frozen(generation, standing))
        return generation

    def stop_reason(self) -> str | None:
        """Why there is no use in another generation; ``None`` while there is."""
        return "nothing new to evaluate" if self._exhausted else None

    def distribution(self) -> CmaState:
        """The distribution after all candidates so far."""
        return self._strategy.state()

    def mean_bits(self) -> Bits:
        """The distribution's mean as bits; shape ``(quantizers,)``."""
        mean = self.distribution().parameters
        return self._space.decode([mean[c.name] for c in self._space.free])

    def _follow(self, bits: Bits, values: Vector) -> None:
        """Move the distribution, as soon as there are as many candidates as CMA-ES recombines."""
        self._waiting.extend(zip(self._points(bits), np.minimum(values, _WORST).tolist(), strict=True))
        if len(self._waiting) >= self._strategy.smallest_update:
            points, worth = zip(*self._waiting, strict=True)
            nothing = np.empty((0, self._strategy.dimension))
            self._strategy.update(nothing, np.array(points), np.array(worth))
            self._waiting.clear()

    def _new_strategy(self, step_size: float, size: int, carried: CmaState | None) -> Strategy:
        coordinates = self._coordinates
        if carried is not None:
            widest = max(carried.step_size, step_size / 2)  # as make_sampler has it
            state = carried.ordered(coordinates.names).moved(mean=None, step_size=widest)
        else:
            vector = self._space.encode(self._space.allocation(self._start)).tolist()
            mean = {c.name: value for c, value in zip(self._space.free, vector, strict=True)}
            state = initial_state(coordinates, coordinates.encode(mean), step_size)
        return Strategy(coordinates, state, size)

    def _first(self, size: int, rng: np.random.Generator) -> Bits:
        rows = [self._constraints.repair(self._start)]
        table = self._sensitivity()
        if table is None:
            return np.concatenate([np.array(rows), self._drawn(size - 1, rng)])
        allocator = Allocator(self._constraints)
        rows.append(allocator.allocate(table.increases))
        for _ in range(size - 2):
            weights = np.exp(_WEIGHT_SPREAD * rng.standard_normal((len(table.names), 1)))
            rows.append(allocator.allocate(weights * table.increases, exchange=False))
        return np.array(rows)

    def _drawn(self, count: int, rng: np.random.Generator) -> Bits:
        """Candidates from the distribution."""
        normals = rng.standard_normal((count, self._strategy.dimension))
        points = np.array([self._coordinates.fold(self._strategy.draw(normal)) for normal in normals])
        order = [self._coordinates.names.index(c.name) for c in self._space.free]
        return self._space.decode(points[:, order])

    def _points(self, bits: Bits) -> Vector:
        """Candidates as unbounded points; shape ``(P, free)``, in the order of the coordinates."""
        columns = [self._space.profile.column(name) for name in self._coordinates.names]
        logarithms = np.log2(bits[:, columns].astype(np.float64))
        points = np.clip(logarithms, self._coordinates.lower, self._coordinates.upper)
        return np.array([self._coordinates.unfold(point) for point in points]).reshape(points.shape)

    def _frozen(self, generation: Generation, standing: Standing) -> list[FrozenTrial]:
        names, space = [c.name for c in self._space.free], self._space
        trials = []
        for i, bits in enumerate(generation.bits):
            vector = space.encode(space.allocation(bits)).tolist()
            params, value = dict(zip(names, vector, strict=True)), float(generation.values[i])
            trial = optuna.trial.create_trial(params=params, distributions=self._distributions, value=value)
            annotate(trial, self._constraints, generation, standing, i)
            trials.append(trial)
        return trials


def _each_once(bits: Bits) -> Bits:
    """Different rows in the order in which they first occur."""
    _, first = np.unique(bits, axis=0, return_index=True)
    kept: Bits = bits[np.sort(first)]
    return kept
