"""The studies of a run in the user's storage: one of the whole run, one of each gradient-free step.

A run without a storage has none, and everything here does nothing then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.search.callbacks import notify
from gfb_brevitas.search.history import History, Record
from gfb_brevitas.search.plan import Unit, step_name
from gfb_brevitas.search.search_study import SearchStudy
from gfb_brevitas.search.storages import delete_studies, require_no_studies, require_own_studies
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.search.unwritten import UnwrittenTrials


class RunStudies:
    """Writes a run's studies.

    Args:
        storage: The user's storage, if there is one.
        name: Name of the run's study, and first part of the names of the others.
        units: All units of the run.
        constraints: The budgets, with the search space.
        unwritten: Where trials are kept that the storage does not take, if anywhere.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage | None,
        *,
        name: str,
        units: Sequence[Unit],
        constraints: Constraints,
        unwritten: UnwrittenTrials | None,
    ) -> None:
        self._storage, self._name, self._units = storage, name, units
        self._constraints, self._unwritten = constraints, unwritten
        self._search_study: SearchStudy | None = None
        self.writer: TrialWriter | None = None

    def name_of(self, unit: Unit) -> str:
        """Name of the study of a gradient-free step."""
        return f"{self._name}/{step_name(unit)}"

    def require_none(self) -> None:
        """Check that a new run does not mix with an old one.

        Raises:
            ConfigurationError: If the storage holds one of the studies.
        """
        if self._storage is not None:
            require_no_studies(self._storage, [self._name, *self._names_of_steps(0)])

    def make_room(self, run_id: str, completed: int) -> None:
        """Delete what a resumed run writes again.

        Args:
            run_id: The run's id.
            completed: Units that it has done.

        Raises:
            ConfigurationError: If the storage holds studies of another run under these names.
            CheckpointError: If what is kept of unwritten trials is damaged; nothing is deleted then.
        """
        if self._storage is None:
            return
        if self._unwritten is not None:
            self._unwritten.read()
        require_own_studies(self._storage, [self._name], run_id)
        delete_studies(self._storage, self._names_of_steps(completed), run_id)

    @contextmanager
    def written(
        self,
        run_id: str,
        completed: int,
        history: History,
        *,
        pretrain: Mapping[str, int],
        start: Mapping[str, int],
        attributes: Mapping[str, Any],
    ) -> Iterator[None]:
        """Write the studies while the block does what is left of the run.

        Args:
            run_id: The run's id, which its studies are marked with.
            completed: Units that were done before.
            history: What happened before.
            pretrain: The allocation of the pretraining.
            start: The allocation that the search starts from.
            attributes: What the run's study says of it.

        Raises:
            ConfigurationError: If a study of the run's name is another run's.
        """
        if self._storage is None:
            yield
            return
        self.writer = TrialWriter(self._storage, run_id)
        try:
            self._catch_up(completed)
            self._search_study = SearchStudy(
                self._constraints,
                self._units,
                name=self._name,
                writer=self.writer,
                pretrain=pretrain,
                start=start,
            )
            self._search_study.begin(history, attributes)
            yield
        except BaseException as error:
            if self._search_study is not None:
                self._search_study.stopped(error)
            raise
        finally:
            self.writer.close(self._other_place())
            self.keep_unwritten(stopped=True)

    def tell(self, record: Record) -> None:
        """Pass a record to the study of the run."""
        if self._search_study is not None:
            notify([self._search_study], record)

    def keep_unwritten(self, *, stopped: bool = False) -> None:
        """Keep what the storage has not taken yet in the run's folder, if there is one.

        Args:
            stopped: Whether the run ends: trials that follow it are kept too then.
        """
        if self.writer is None or self._unwritten is None:
            return
        # What is followed is written again by a resumed run anyway: the history has it.
        followed = {} if stopped else self.writer.heads
        trials = {name: left for name, left in self.writer.waiting.items() if name not in followed}
        self._unwritten.keep(trials, self.writer.heads)

    def _names_of_steps(self, completed: int) -> list[str]:
        return [self.name_of(unit) for unit in self._units[completed:] if unit.kind == "step"]

    def _catch_up(self, completed: int) -> None:
        """Write what the storage did not take before the run was stopped."""
        if self.writer is None or self._unwritten is None:
            return
        again = {self._name, *self._names_of_steps(completed)}
        left = self._unwritten.read()
        self.writer.catch_up({name: trials for name, trials in left.items() if name not in again})
        if left:
            self.keep_unwritten()

    def _other_place(self) -> str:
        if self._unwritten is None:
            return "Without a run folder they are kept nowhere else."
        return (
            f"They are kept in {str(self._unwritten.path)!r}, an Optuna journal. Resuming the run, "
            "also one that has ended, writes them into the storage."
        )
