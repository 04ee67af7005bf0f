"""One run of CMA-ES within a study: a chain of distributions, each made from finished trials."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import islice

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from gfb_brevitas.samplers._coordinates import Coordinates, Vector
from gfb_brevitas.samplers._ranking import ConstraintPenalty, ranking_values
from gfb_brevitas.samplers._records import Draw, Ledger, Update
from gfb_brevitas.samplers._strategy import Strategy

Entry = tuple[FrozenTrial, Draw]

_SAME_POINT = 1e-6  # of a coordinate's width; rounding of parameters that took part in an update


class Run:
    """Follows the updates recorded in a study, and says when the next is due.

    Args:
        name: Digest of the settings; also names the first distribution.
        strategy: Makes the first distribution.
        direction: Of the study.
        constraint_penalty: How infeasible trials are ranked.
    """

    def __init__(
        self,
        name: str,
        strategy: Callable[[], Strategy],
        direction: StudyDirection,
        constraint_penalty: ConstraintPenalty,
    ) -> None:
        self.name = name
        self._first = strategy
        self._direction: StudyDirection = direction
        self._constraint_penalty: ConstraintPenalty = constraint_penalty
        self._preview: tuple[str, Strategy] | None = None
        self._rewind()

    @property
    def coordinates(self) -> Coordinates:
        """The box that is searched."""
        return self.strategy.coordinates

    def draw(self, seed: int, index: int) -> tuple[Draw, dict[str, float | int]]:
        """Parameters from the present distribution; equal for equal seed and index."""
        draw = Draw(
            run=self.name,
            distribution=self.distribution,
            generation=self.strategy.generation,
            seed=seed,
            index=index,
        )
        return draw, self._parameters(draw)

    def follow(self, ledger: Ledger) -> None:
        """Make all updates that the study has on record.

        Processes at work at the same time may have recorded different updates of one distribution. The
        longest chain counts, and of equally long ones that whose last update the earliest trial holds.
        """
        self._take_in(ledger.complete.get(self.name, {}))
        known = ledger.updates.get(self.name, {})
        if not known:
            return
        _, last = max(known.values(), key=lambda entry: (entry[1].generation, -entry[0]))
        if last.child == self.distribution:
            return
        path = self._path_to(last.child, {child: update for child, (_, update) in known.items()})
        if path and path[0].parent != self.distribution:
            self._rewind()
            self._take_in(ledger.complete.get(self.name, {}))
        for update in path:
            self.make(update)

    def due(self) -> Update | None:
        """The update that finished trials call for, if there are enough of them.

        All trials that no update has used take part. There must be a population of them, at least half
        of it drawn from the present distribution.
        """
        size = self.strategy.population_size
        fresh = sum(self._complete[number][1].distribution == self.distribution for number in self._waiting)
        if len(self._waiting) < size or 2 * fresh < size:
            return None
        return Update(
            run=self.name,
            parent=self.distribution,
            generation=self.strategy.generation + 1,
            told=tuple(sorted(self._waiting)),
        )

    def make(self, update: Update) -> None:
        """Replace the distribution by that after an update."""
        if self._preview is not None and self._preview[0] == update.child:
            self.strategy = self._preview[1]
        else:
            self._apply(update, self.strategy)
        self.distribution = update.child
        self._waiting.difference_update(update.told)
        self._preview = None

    def preview(self) -> Strategy:
        """The distribution that the next trial would be drawn from."""
        update = self.due()
        if update is None:
            return self.strategy
        if self._preview is None or self._preview[0] != update.child:
            strategy = copy.deepcopy(self.strategy)
            self._apply(update, strategy)
            self._preview = update.child, strategy
        return self._preview[1]

    def _rewind(self) -> None:
        self.strategy = self._first()
        self.distribution = self.name
        self._complete: dict[int, Entry] = {}
        self._waiting: set[int] = set()
        self._taken_in = 0

    def _take_in(self, complete: dict[int, Entry]) -> None:
        self._complete = complete
        self._waiting.update(islice(complete, self._taken_in, None))
        self._taken_in = len(complete)

    def _path_to(self, distribution: str, made_by: Mapping[str, Update]) -> list[Update]:
        """The updates from the present distribution, or else from the first, to another.

        None of them if the storage does not show all of them, or all of their trials, yet.
        """
        path: list[Update] = []
        while distribution not in (self.distribution, self.name):
            update = made_by.get(distribution)
            if update is None or not all(number in self._complete for number in update.told):
                return []
            path.append(update)
            distribution = update.parent
        return path[::-1]

    def _apply(self, update: Update, strategy: Strategy) -> None:
        drawn: list[Entry] = []
        others: list[Entry] = []
        for entry in (self._complete[number] for number in update.told):
            (drawn if self._is_as_drawn(*entry) else others).append(entry)
        strategy.update(
            np.array([self._normal(draw) for _, draw in drawn]).reshape(-1, strategy.dimension),
            np.array([self._from_elsewhere(trial) for trial, _ in others]).reshape(-1, len(self.coordinates)),
            ranking_values([trial for trial, _ in others + drawn], self._direction, self._constraint_penalty),
        )

    def _is_as_drawn(self, trial: FrozenTrial, draw: Draw) -> bool:
        """Whether the trial has the parameters of its draw from the present distribution."""
        if draw.distribution != self.distribution:
            return False
        drawn = self.coordinates.encode(self._parameters(draw))
        actual = self.coordinates.encode(trial.params, default=drawn)
        return bool(np.all(np.abs(actual - drawn) <= _SAME_POINT * self.coordinates.widths))

    def _from_elsewhere(self, trial: FrozenTrial) -> Vector:
        """The unbounded point of a trial's parameters that is nearest to the mean."""
        mean = self.strategy.mean
        point = self.coordinates.encode(trial.params, default=self.coordinates.fold(mean))
        return self.coordinates.unfold_near(point, mean)

    def _parameters(self, draw: Draw) -> dict[str, float | int]:
        return self.coordinates.decode(self.coordinates.fold(self.strategy.draw(self._normal(draw))))

    def _normal(self, draw: Draw) -> Vector:
        rng = np.random.default_rng([draw.seed, draw.index])
        return rng.standard_normal(self.strategy.dimension)
