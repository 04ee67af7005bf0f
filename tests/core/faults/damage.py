"""Faults of files: cut off, bits flipped, replaced by something that would run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.costs import LatencyTable
from gfb_brevitas.errors import GfbError
from gfb_brevitas.search.checkpoint import CheckpointStore, content_digest
from gfb_brevitas.search.recorded_run import RecordedRun
from gfb_brevitas.search.unwritten import UnwrittenTrials
from tests.core.faults.runs import Course, RunProcess
from tests.core.search.databases import make_storage


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is read.

    Attributes:
        name: What it is.
        path: Where it is in the folder of a run.
        read: Reads it; the content as text.
    """

    name: str
    path: str
    read: Callable[[Path], str]


def _checkpoint(path: Path) -> str:
    loaded = CheckpointStore(path.parent).load()
    return content_digest([vars(loaded) | {"best": None if loaded.best is None else vars(loaded.best)}])


def _best(path: Path) -> str:
    best = CheckpointStore(path.parent).load_best()
    return content_digest([best.allocation, best.model, best.metric])


def _recorded(path: Path) -> str:
    run = RecordedRun.load(next(parent for parent in path.parents if (parent / "config.json").exists()))
    candidates = [[c.bits, c.losses, c.costs, c.generation, c.sensitivity] for c in run.candidates]
    parts = (run.run_id, run.configuration, run.versions, run.quantizers, run.refused, run.budgets)
    rest = (run.summary, run.allocation, run.clipping, run.layer_costs)
    rest += ([record.to_dict() for record in run.history],)
    return repr((parts, rest)) + json.dumps(candidates, default=_plain)


def _plain(value: Any) -> Any:
    return None if value is None else value.tolist()


def _trials(path: Path) -> str:
    trials = UnwrittenTrials(path).read()
    return repr({name: [(t.params, t.values, t.user_attrs) for t in kept] for name, kept in trials.items()})


KINDS = (
    FileKind("checkpoint", "checkpoints/latest.pt", _checkpoint),
    FileKind("best state", "checkpoints/best.pt", _best),
    FileKind("allocation", "allocation.json", lambda path: repr(BitAllocation.load(path))),
    FileKind("allocation of a run", "allocation.json", _recorded),
    FileKind("summary", "summary.json", _recorded),
    FileKind("configuration", "config.json", _recorded),
    FileKind("profile", "profile.json", _recorded),
    FileKind("clipping values", "clipping.json", _recorded),
    FileKind("costs of layers", "layer_costs.json", _recorded),
    FileKind("history", "history.jsonl", _recorded),
    FileKind("generations", "generations/round-01/step-02.jsonl", _recorded),
    FileKind("cost table", "table.json", lambda path: repr(LatencyTable.load(path))),
    FileKind("unwritten trials", "unwritten.journal", _trials),
)


def prepared_folder(course: Course) -> Path:
    """The undisturbed run, with one of every kind of file, and one checkpoint only."""
    folder = course.root / f"files-{course.fault}"
    shutil.copytree(course.expected.folder / "run", folder)
    (folder / "checkpoints" / "previous.pt").unlink()
    pairs = {(weight, act): 0.1 * weight * act for weight in range(1, 9) for act in range(1, 9)}
    LatencyTable(name="latency", unit="us", layers={"conv": pairs, "fc": pairs}).save(folder / "table.json")
    storage = make_storage(f"sqlite:///{course.expected.folder}/studies.db")
    study = optuna.load_study(study_name="run/round-01/step-01", storage=storage)
    UnwrittenTrials(folder / "unwritten.journal").keep({study.study_name: study.trials})
    return folder


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """A random beginning."""
    return data[: int(rng.integers(len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three bytes changed."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
    return bytes(changed)


def damage(course: Course, kind: FileKind, how: Callable[[bytes, np.random.Generator], bytes]) -> None:
    """A file is damaged and read: an error that names it, or the content it had; it stays as it is."""
    folder = prepared_folder(course)
    path = folder / kind.path
    data = path.read_bytes()
    expected = kind.read(path)
    while course.done < course.tries:
        course.done += 1
        bad = how(data, course.rng)
        path.write_bytes(bad)
        problems, differs = [], False
        try:
            differs = kind.read(path) != expected
            course.saw("harmless")
        except GfbError as error:
            course.saw("refused")
            if path.name not in str(error):
                problems.append(f"the error does not name the file: {error}")
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
        if differs:
            problems.append("another content was read")
        if path.read_bytes() != bad:
            problems.append("the file was changed")
        course.note(problems, differs=differs)
    shutil.rmtree(folder)


def damage_then_resume(course: Course) -> None:
    """A file of a killed run is damaged.

    Resuming says so and leaves all as it is, and goes on when the file is back; or it ends as if nothing
    had happened.
    """
    for folder in course.folders():
        process = RunProcess(folder)
        process.wait_for_lines(int(course.rng.integers(1, len(course.expected.history))))
        process.end()
        read = ("checkpoints/*.pt", "config.json", "history.jsonl", "generations/*/*.jsonl")
        files = sorted(path for pattern in read for path in (folder / "run").glob(pattern))
        path = files[int(course.rng.integers(len(files)))]
        data = path.read_bytes()
        path.write_bytes((truncated if course.done % 2 else flipped)(data, course.rng) if data else b"x")
        before = _contents(folder)
        outcome = RunProcess(folder).wait()
        if outcome.allocation is None:
            course.saw("refused")
            if not outcome.error.startswith("CheckpointError") or _contents(folder) != before:
                course.note([f"{path.name}: {outcome.error or 'it died'}; or the folder was changed"])
                continue
            path.write_bytes(data)
            outcome = RunProcess(folder).wait()
        else:
            course.saw("went on")
            # What was lost of a step that is over stays lost, and is named.
            if "generations" in path.parts and _is_named(folder, path):
                path.write_bytes(data)
        course.judge(folder, outcome)


def bomb(course: Course) -> None:
    """Files of a run are replaced by pickles that write a file when they are loaded."""
    for folder in course.folders():
        run = folder / "run"
        shutil.copytree(course.expected.folder / "run", run)
        trace = folder / "executed"
        for path in [file for file in run.rglob("*") if file.is_file()]:
            if course.done % 2:
                torch.save({"version": 1, "digest": "", "content": _Bomb(trace)}, path)
            else:
                path.write_bytes(pickle.dumps(_Bomb(trace)))
        for kind in KINDS:
            path = run / kind.path
            if path.exists():
                with _refused(course):
                    kind.read(path)
        outcome = RunProcess(folder).wait()
        problems = ["the file was executed"] if trace.exists() else []
        if outcome.allocation is not None or not outcome.error.startswith("CheckpointError"):
            problems.append(f"it was resumed: {outcome}")
        course.note(problems)


def _contents(folder: Path) -> dict[str, bytes]:
    """The files of a run, but for those of the process that works there and what a killed writer left."""
    files = [path for path in (folder / "run").rglob("*") if path.is_file()]
    kept = [path for path in files if path.name not in ("run.lock", "run.log") and path.suffix != ".tmp"]
    return {str(path): path.read_bytes() for path in kept}


def _is_named(folder: Path, path: Path) -> bool:
    try:
        return not RecordedRun.load(folder / "run").candidates
    except GfbError as error:
        return str(path) in str(error)


class _Bomb:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._trace),)


@contextmanager
def _refused(course: Course) -> Iterator[None]:
    try:
        yield
    except GfbError:
        course.saw("refused")
