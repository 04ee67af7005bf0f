"""Small runs in processes of their own, which can be killed, and what is left of them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import GfbError
from gfb_brevitas.search import trial_writer
from gfb_brevitas.search.checkpoint import CheckpointStore
from gfb_brevitas.search.recorded_run import RecordedRun
from tests.core.search.databases import Studies, everything_but_times
from tests.core.search.small_problem import comparable, run

ROOT = Path(__file__).parents[3]
_numbers = count()

torch.set_num_threads(1)


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        allocation: The allocation of a run that came to its end.
        digest: A hash of everything of its result but times.
        error: Name and message of the error that ended it otherwise; empty if it was killed.
    """

    allocation: dict[str, int] | None = None
    digest: str = ""
    error: str = ""


class RunProcess:
    """A run in a process of its own: with ``resume=True``, so that it begins a run or goes on with it.

    Args:
        folder: Where the run folder ``run``, and the database unless another one is named, are.
        place: URL of the storage.
        impatient: Whether a storage that fails or hangs is given up after moments.
        obedient: Whether it gives up the right of root to write where permissions say no.
        tracking: URL of an MLflow server that is told of the run, in an experiment named as the folder.
    """

    def __init__(
        self,
        folder: Path,
        place: str | None = None,
        *,
        impatient: bool = False,
        obedient: bool = False,
        tracking: str | None = None,
    ) -> None:
        self.folder = folder / "run"
        self._outcome = folder.parent / f"{folder.name}.{next(_numbers)}.outcome.json"
        order = {
            "folder": str(self.folder),
            "place": place or database_in(folder),
            "outcome": str(self._outcome),
            "impatient": impatient,
            "obedient": obedient,
            "tracking": tracking,
        }
        self._process = _context().Process(target=_work, args=(order,))
        self._process.start()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self, timeout_s: float = 120.0) -> Outcome:
        """How it ended."""
        self._process.join(timeout_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            return Outcome(error=f"TimeoutError: it did not end within {timeout_s:g} s")
        text = self._outcome.read_text() if self._outcome.exists() else ""
        return Outcome(**json.loads(text)) if text else Outcome()

    def end(self, how: signal.Signals = signal.SIGKILL) -> Outcome:
        """Send it a signal, if it still runs, and wait."""
        self.send(how)
        return self.wait()

    def send(self, what: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, what)

    def lines(self) -> int:
        """Lines in the history."""
        history = self.folder / "history.jsonl"
        return history.read_bytes().count(b"\n") if history.exists() else 0

    def wait_for_lines(self, count: int) -> bool:
        """Wait until the history has so many lines; ``False`` if the process ends before."""
        while self._process.is_alive():
            if self.lines() >= count:
                return True
            time.sleep(0.005)
        return False


def database_in(folder: Path) -> str:
    """URL of the SQLite database in a folder."""
    return f"sqlite:///{folder}/studies.db"


def _context() -> Any:
    # Forked from one process that has imported everything and computed nothing.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    if order["obedient"]:
        _obey_permissions()
    if order["impatient"]:
        defaults: Any = trial_writer.TrialWriter.__init__.__kwdefaults__
        defaults.update(patience=1.0, longest_write=2.0)
    try:
        with _tracking(order) as callbacks:
            result = run(
                run_folder=order["folder"],
                resume=True,
                storage=order["place"],
                name="run",
                callbacks=callbacks,
            )
    except BaseException as error:
        outcome: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
    else:
        digest = hashlib.sha256(repr(comparable(result)).encode()).hexdigest()
        outcome = {"allocation": dict(result.allocation), "digest": digest}
    Path(order["outcome"]).write_text(json.dumps(outcome))


@contextmanager
def _tracking(order: dict[str, Any]) -> Iterator[list[Any]]:
    if order["tracking"] is None:
        yield []
        return
    from gfb_integrations.mlflow import MlflowTracking

    experiment = Path(order["folder"]).parent.name
    with MlflowTracking(order["tracking"], experiment=experiment, timeout_s=60) as tracking:
        yield [tracking]


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to, and its storage.

    Attributes:
        folder: Where they are.
        outcome: Its result.
        studies: What is in the storage.
        history: The records in its folder, without times.
        seconds: What it took.
    """

    folder: Path
    outcome: Outcome
    studies: Studies
    history: list[dict[str, Any]]
    seconds: float

    @classmethod
    def make(cls, folder: Path) -> Undisturbed:
        """Do the run, twice: the first one warms up."""
        for name in ("warm", "undisturbed"):
            own = folder / name
            own.mkdir()
            began = time.perf_counter()
            outcome = RunProcess(own).wait()
            seconds = time.perf_counter() - began
        assert outcome.allocation is not None, outcome.error
        history = recorded_history(own)
        return cls(own, outcome, everything_but_times(database_in(own)), history, seconds)


def recorded_history(folder: Path) -> list[dict[str, Any]]:
    """The records in a run's folder, without times."""
    records = RecordedRun.load(folder / "run").history
    return [{k: v for k, v in record.to_dict().items() if k != "seconds"} for record in records]


@dataclass
class Course:
    """So many tries of one fault, each in a folder of its own, and what came of them.

    A try is *lost* if its run could not be brought to its end, or anything of it (history, trials in the
    storage, weights, a file) is not what the undisturbed run has.

    Args:
        fault: What happens to the runs.
        expected: The undisturbed run.
        root: Where the folders are made.
        tries: How many.
        longest_s: After so many seconds no try is begun.
        seed: Of what is drawn.
    """

    fault: str
    expected: Undisturbed
    root: Path
    tries: int
    longest_s: float = 600.0
    seed: int = 0
    done: int = 0
    lost: int = 0
    allocation_differs: int = 0
    problems: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, *self.fault.encode()])

    def folders(self) -> Iterator[Path]:
        """A new folder for every try."""
        began = time.perf_counter()
        while self.done < self.tries and time.perf_counter() - began < self.longest_s:
            self.done += 1
            folder = self.root / f"{self.fault.replace(' ', '-').replace(',', '')}-{self.done}"
            folder.mkdir(parents=True)
            yield folder

    def moment(self, process: RunProcess) -> None:
        """Wait until a random moment of a run: half of them are anywhere, half of them after a record."""
        longest_s = self.expected.seconds
        if self.done % 2:
            process.wait_for_lines(int(self.rng.integers(len(self.expected.history) + 1)))
            longest_s /= len(self.expected.history)
        time.sleep(float(self.rng.uniform(0.0, longest_s)))

    def judge(
        self, folder: Path, outcome: Outcome, place: str | None = None, further: Sequence[str] = ()
    ) -> None:
        """Compare what a run came to with the undisturbed one; further problems count as the same try's."""
        problems = [*self._problems(folder, outcome, place or database_in(folder)), *further]
        self.note(problems, differs=outcome.allocation not in (None, self.expected.outcome.allocation))

    def note(self, problems: list[str], *, differs: bool = False) -> None:
        """Count a try."""
        self.lost += bool(problems)
        self.allocation_differs += differs
        self.problems += [f"try {self.done}: {problem}" for problem in problems]

    def saw(self, what: str) -> None:
        """Count something that happened on the way."""
        self.seen[what] = self.seen.get(what, 0) + 1

    def row(self) -> dict[str, Any]:
        """The fault's row."""
        return {
            "fault": self.fault,
            "tries": self.done,
            "lost": self.lost,
            "allocation_differs": self.allocation_differs,
            "seen": ", ".join(f"{number} {what}" for what, number in sorted(self.seen.items())),
        }

    def _problems(self, folder: Path, outcome: Outcome, place: str) -> Iterator[str]:
        if outcome.allocation is None:
            yield outcome.error or "it died"
            return
        if outcome.digest != self.expected.outcome.digest:
            yield "the result is another one"
        try:
            recorded = RecordedRun.load(folder / "run")
            assert recorded.candidates
            if recorded_history(folder) != self.expected.history:
                yield "the history is another one"
            if dict(BitAllocation.load(folder / "run" / "allocation.json")) != outcome.allocation:
                yield "the allocation's file is another one"
            store = CheckpointStore(folder / "run" / "checkpoints")
            store.load()
            if store.load_best().allocation != outcome.allocation:
                yield "the best state is another one"
        except GfbError as error:
            yield f"a file is broken: {error}"
        left = sorted(path.name for path in (folder / "run").rglob("*") if path.name.endswith(".tmp"))
        if left or (folder / "run" / "unwritten.journal").exists():
            yield f"files are left over: {left or 'unwritten.journal'}"
        yield from differences(everything_but_times(place), self.expected.studies)


def differences(found: Studies, expected: Studies) -> Iterator[str]:
    """What of a storage is not as expected."""
    if found.keys() != expected.keys():
        yield f"the storage holds the studies {sorted(found)}"
    for name in found.keys() & expected.keys():
        numbers = [trial[0] for trial in found[name]]
        if len(numbers) != len(expected[name]):
            yield f"{name!r} holds {len(numbers)} trials instead of {len(expected[name])}"
        elif found[name] != expected[name]:
            yield f"the trials of {name!r} are others"


def _obey_permissions() -> None:
    """Give up the right of root to write where permissions say no."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 capabilities
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    override, read_search = 1, 2
    for i in range(3):
        sets[i] &= ~(1 << override | 1 << read_search)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
