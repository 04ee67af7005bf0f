"""Writes a run's trials into the user's storage while the search goes on.

A thread takes whole generations in order, those of about a second at once, and adds them in one transaction
where the storage has such (:mod:`gfb_brevitas.search.bulk_insert`). It lives while there is something to
write. A storage that fails is tried again for a while; one that goes on failing, or does not answer at all,
keeps nobody waiting: its trials stay in memory, and every flush tries once more. All of this is [ours].
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice, takewhile

import optuna
from optuna.trial import FrozenTrial

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search.bulk_insert import adder, is_in_memory
from gfb_brevitas.search.storages import StudyHead, belongs_to, first_line, mark, new_study
from gfb_brevitas.search.time_limit import within
from gfb_brevitas.search.trial_update import updater

MOST_WAITING = 256
"""Generations that may wait for a storage that works; then the search waits for it."""
MOST_AT_ONCE = 32
"""Generations in one transaction."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0  # seconds
_GATHERING = 1.0  # seconds

_logger = logging.getLogger(__name__)
_Generation = tuple[str, list[FrozenTrial]]


class TrialWriter:
    """Adds trials to studies of one storage, in the background and in order.

    Storages in this process's memory are written to at once: there is nothing to wait for.

    Args:
        storage: The storage.
        run_id: Id of the run, which its studies are marked with.
        patience: Seconds for which a failing storage is tried again before the search goes on without it.
        longest_write: Seconds after which a storage that does not answer counts as failing.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        run_id: str | None = None,
        *,
        patience: float = 10.0,
        longest_write: float = 30.0,
    ) -> None:
        self._storage, self._run_id = storage, run_id
        self._patience, self._longest_write = patience, longest_write
        self._add, self._update = adder(storage), updater(storage)
        self._heads: dict[str, StudyHead] = {}
        self._in_background = not is_in_memory(storage)
        self._studies: dict[str, optuna.Study] = {}
        self._stored: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._from_before: set[str] = set()
        self._waiting: deque[_Generation] = deque()
        self._changed = threading.Condition()
        self._at_work = False
        self._flushes = 0
        self._fails = False
        self._in_doubt = False  # whether some of the oldest generations may be stored already
        self._last_answer = time.monotonic()

    @property
    def missing(self) -> dict[str, int]:
        """How many trials of which study are not in the storage yet, or never will be."""
        waiting = {name: len(trials) for name, trials in self.waiting.items()}
        with self._changed:
            return dict(self._lost + Counter(waiting))

    @property
    def waiting(self) -> dict[str, list[FrozenTrial]]:
        """The trials that are not in the storage yet, by study and in order."""
        trials: dict[str, list[FrozenTrial]] = {}
        with self._changed:
            for name, generation in self._waiting:
                trials.setdefault(name, []).extend(generation)
        for name in trials.keys() & self._heads.keys():
            trials[name] = list({trial.number: trial for trial in trials[name]}.values())
        return trials

    @property
    def heads(self) -> dict[str, StudyHead]:
        """What those studies are made with whose trials are followed."""
        return dict(self._heads)

    def catch_up(self, left: Mapping[str, Sequence[FrozenTrial]]) -> None:
        """Write what an earlier process could not, but for what is there all the same."""
        with self._changed:
            self._from_before.update(left)
            self._waiting.extend((name, list(trials)) for name, trials in left.items())
        self.flush()

    def begin(self, name: str, head: StudyHead | None = None) -> None:
        """Create a study.

        Args:
            name: Its name.
            head: Of a study whose trials are followed: what is added to it is what trials are now, running
                ones too (see :mod:`gfb_brevitas.search.trial_update`). It may exist if it is the run's.

        Raises:
            ConfigurationError: If there is one of that name.
        """
        if head is not None:
            self._heads[name] = head
        if self._fails:
            return  # It is created with its first trials.
        try:
            self._studies[name] = self._limited(lambda: self._created(name))
        except ConfigurationError:
            raise
        except TimeoutError:
            self._give_up_waiting()
        except Exception as error:  # of whichever database driver
            _logger.info("The study %r is not created yet: %s", name, first_line(error))

    def add(self, name: str, trials: Sequence[FrozenTrial]) -> None:
        """Add trials to a study that was begun. They must not be changed afterwards."""
        with self._changed:
            self._wait_for(lambda: len(self._waiting) < MOST_WAITING)
            self._waiting.append((name, list(trials)))
            if self._fails:
                return
        self._start()

    def flush(self) -> None:
        """Wait until everything is written, or the storage has failed for too long."""
        if self._waiting:
            self._start()
        with self._changed:
            self._flushes += 1
            self._changed.notify_all()
            try:
                self._wait_for(lambda: not self._at_work)
            finally:
                self._flushes -= 1

    def close(self, advice: str = "") -> None:
        """Flush; then say what is missing in the storage.

        Args:
            advice: Where else the trials are.
        """
        self.flush()
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work, timeout=self._patience)
        waiting = {name: len(trials) for name, trials in self.waiting.items()}
        if waiting:
            _logger.error(
                "%d trials are not in the storage, because it failed: %s. %s",
                *(sum(waiting.values()), _counted(waiting), advice),
            )
        if self._lost:
            _logger.error(
                "%d trials are not stored, because their study was deleted or is another run's: %s. Their "
                "bits and losses are in the run folder's `generations`, if there is one.",
                *(sum(self._lost.values()), _counted(self._lost)),
            )

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """Flush at the end of the block, however it ends."""
        try:
            yield
        finally:
            self.flush()

    def _start(self) -> None:
        with self._changed:
            if self._at_work:
                return
            self._at_work = True
            self._last_answer = time.monotonic()
        try:
            if self._in_background:
                # Not waited for at exit: a flush has waited already unless the storage fails.
                threading.Thread(target=self._work, name="gfb-trial-writer", daemon=True).start()
            else:
                self._work()
        except BaseException:  # Ctrl-C before the thread runs, or no thread to be had
            with self._changed:
                self._at_work, self._in_doubt = False, True
            raise

    def _work(self) -> None:
        try:
            while (batch := self._next_batch()) and self._dispose(batch):
                self._gather()
        except BaseException:  # Ctrl-C, where it is the caller that writes
            with self._changed:
                self._at_work, self._in_doubt = False, True
                self._changed.notify_all()
            raise

    def _gather(self) -> None:
        """Let more generations come: most of a transaction's cost does not depend on how many it holds."""
        if not self._in_background:
            return
        with self._changed:
            most = min(_GATHERING, self._longest_write / 4)
            self._changed.wait_for(lambda: self._flushes or len(self._waiting) >= MOST_AT_ONCE, most)
            self._last_answer = time.monotonic()

    def _dispose(self, batch: list[_Generation]) -> bool:
        """Write the oldest generations; ``False`` if the storage goes on failing."""
        error = self._written(batch[0][0], [trial for _, trials in batch for trial in trials])
        with self._changed:
            if error is None:
                for _ in batch:
                    self._waiting.popleft()
            self._note(error)
        return error is None

    def _next_batch(self) -> list[_Generation]:
        """The oldest generations, all of one study."""
        with self._changed:
            if not self._waiting:
                self._at_work = False
                self._changed.notify_all()
                return []
            name = self._waiting[0][0]
            return list(islice(takewhile(lambda entry: entry[0] == name, self._waiting), MOST_AT_ONCE))

    def _limited(self, call: Callable[[], optuna.Study]) -> optuna.Study:
        return within(self._longest_write, call) if self._in_background else call()

    def _wait_for(self, reached: Callable[[], bool]) -> None:
        """Wait, the lock being held, for something or until the storage fails."""
        while not (reached() or self._fails):
            left = self._last_answer + self._longest_write - time.monotonic()
            if left > 0:
                self._changed.wait(left)
            else:
                self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        # The thread, if there is one, stays where it is; should it come back, the storage works again.
        if not self._fails:
            _logger.warning(
                "The storage does not answer for %g s. The search goes on; its trials are kept in memory and "
                "written once the storage works again.",
                self._longest_write,
            )
        self._fails = self._in_doubt = True

    def _note(self, error: Exception | None) -> None:
        self._last_answer = time.monotonic()
        if error is not None and not self._fails:
            _logger.warning(
                "The storage fails (%s). The search goes on; its trials are kept in memory and written once "
                "the storage works again.",
                first_line(error),
            )
        if error is None and self._fails:
            _logger.info("The storage works again.")
        self._fails = self._in_doubt = error is not None
        self._at_work = error is None
        self._changed.notify_all()

    def _written(self, name: str, trials: list[FrozenTrial]) -> Exception | None:
        """Write trials; what the storage failed with if it went on failing."""
        deadline = time.monotonic() + (0.0 if self._fails else self._patience)
        for attempt in count():
            try:
                self._write(name, trials, again=attempt > 0 or self._in_doubt)
                return None
            except KeyError:  # what every storage raises for a study that is not there
                self._lose(name, trials, "was deleted")
                return None
            except ConfigurationError:
                self._lose(name, trials, "is another run's")
                return None
            except Exception as error:  # of whichever database driver
                delay = min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY)
                self._last_answer = time.monotonic()
                if self._last_answer + delay > deadline:
                    return error
                time.sleep(delay)
        raise AssertionError("unreachable")

    def _write(self, name: str, trials: list[FrozenTrial], *, again: bool) -> None:
        if name not in self._studies:
            self._studies[name] = self._study_at_last(name)
        study = self._studies[name]
        # SQLite gives the number of a study that was deleted to the next one.
        if self._storage.get_study_id_from_name(name) != study._study_id:
            raise KeyError(f"The study {name!r} was deleted.")
        if name in self._heads:
            self._update(study, trials)
            return
        again = again or name in self._from_before
        left = _not_stored(study, trials, since=self._stored[name]) if again else trials
        if left:
            self._add(study, left)
        self._from_before.discard(name)
        self._stored[name] += len(trials)

    def _created(self, name: str) -> optuna.Study:
        head = self._heads.get(name)
        return new_study(self._storage, name, self._run_id) if head is None else self._study_at_last(name)

    def _study_at_last(self, name: str) -> optuna.Study:
        head = self._heads.get(name, StudyHead())
        try:
            return new_study(self._storage, name, self._run_id, head)
        except ConfigurationError:  # created in an attempt that seemed to fail, or before the run died
            if not belongs_to(self._storage, name, self._run_id):
                raise
        study = optuna.load_study(study_name=name, storage=self._storage)
        mark(study, self._run_id, head)  # the storage may have failed before it was marked
        return study

    def _lose(self, name: str, trials: list[FrozenTrial], reason: str) -> None:
        if name not in self._lost:
            _logger.warning("The study %r %s: its trials are not stored any more.", name, reason)
        if name in self._heads:  # all of it is gone
            self._lost[name] = max(trial.number for trial in trials) + 1
        else:
            self._lost[name] += len(trials)


def _not_stored(study: optuna.Study, trials: list[FrozenTrial], *, since: int) -> list[FrozenTrial]:
    """The trials that a failed attempt did not store: its commit may have succeeded, or some of its parts.

    Args:
        study: The study.
        trials: What the attempt was to store.
        since: Number from which on its trials can be the attempt's.
    """
    stored = Counter(_identity(trial) for trial in study.get_trials(deepcopy=False) if trial.number >= since)
    left = []
    for trial in trials:
        identity = _identity(trial)
        if stored[identity]:
            stored[identity] -= 1
        else:
            left.append(trial)
    return left


def _identity(trial: FrozenTrial) -> str:
    # Not the times: MySQL rounds them to seconds.
    return json.dumps([trial.params, trial.user_attrs, trial.system_attrs], sort_keys=True)


def _counted(trials: Mapping[str, int]) -> str:
    return ", ".join(f"{number} of {name!r}" for name, number in trials.items())
