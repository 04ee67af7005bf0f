"""An error of the user's code in mid-run: which setting named it, its own frames, what is kept."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import CodeType
from typing import Any

import typer

import gfb_brevitas
from gfb_brevitas.cli.output import say
from gfb_brevitas.configuration import ConfiguredRun
from gfb_brevitas.errors import BatchError, GfbError
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.users_frames import is_users

_PACKAGE = Path(gfb_brevitas.__file__).resolve().parent

# Where the package calls what a setting names: the file in the package, and the function in it.
_CALLS: dict[tuple[str, str], str] = {
    ("search/loss.py", "__call__"): "loss",
    ("search/validation.py", "_user_metric"): "metric",
    ("search/callbacks.py", "notify"): "callbacks",
    ("search/loop_trainer.py", "run_epoch"): "training",
    ("search/loop_trainer.py", "state_dict"): "training",
    ("search/loop_trainer.py", "load_state_dict"): "training",
}
_DATA = {("evaluation/batches.py", "opened"), ("evaluation/batches.py", "one_pass")}
_DATA |= {("evaluation/batches.py", "__next__")}
_FIRST_LOOK = ("evaluation/batches.py", "require_batches")
# Whose data it is, by who goes through it; what is not given is the next.
_READERS: dict[str, tuple[str, ...]] = {
    "search/training.py": ("train_batches",),
    "search/loop_trainer.py": ("train_batches",),
    "search/run.py": ("calibration_batches", "train_batches"),
    "search/validation.py": ("validation_batches", "search_batches", "train_batches"),
    "evaluation/losses.py": ("validation_batches",),
    "search/selection.py": ("search_batches", "train_batches"),
    "evaluation/super_batch.py": ("search_batches", "train_batches"),
}

# The same where the test data is what it is about.
_TESTING = ("search/alternation.py", "_tested")
_OF_TEST = {"metric": "test_metric", **dict.fromkeys(_READERS["search/validation.py"], "test_batches")}


@contextmanager
def told_in_short(run: ConfiguredRun) -> Iterator[None]:
    """Tell an error of the user's code with its own part of the traceback, and end with 1.

    An error that no code of the user is part of passes: it is the package's, and all of it is of use.
    """
    try:
        yield
    except GfbError as error:
        if isinstance(error, BatchError) and isinstance(error.__cause__, Exception):
            _tell(run, error.__cause__, error)
        raise
    except Exception as error:
        _tell(run, error)
        raise


def _tell(run: ConfiguredRun, error: Exception, explained: BatchError | None = None) -> None:
    """Tell an error and end with 1, unless no code of the user is part of it."""
    setting = _setting(run, *((error,) if explained is None else (explained, error)))
    text = _users_part(error, _files_of(run))
    if setting is None or text is None:
        return
    lines = str(explained or "").splitlines()
    about = "".join(f"{line}\n" for line in dict.fromkeys([*lines[:1], *lines[-1:]]))
    say(f" in {_named(run, setting)}:\n{text}\n{about}{_kept(run)}", lead=type(error).__name__)
    raise typer.Exit(1) from None


def _setting(run: ConfiguredRun, *errors: BaseException) -> str | None:
    """The setting that names the code which raised; the last call out of the package tells."""
    found: str | None = None
    testing = False
    readers: tuple[str, ...] = ()
    for frame, _ in chain.from_iterable(traceback.walk_tb(error.__traceback__) for error in errors):
        place = _place(frame.f_code)
        if place is None:
            continue
        readers = _READERS.get(place[0], readers)
        if place == _FIRST_LOOK:
            found = str(frame.f_locals["name"])
        elif place in _CALLS:
            found = _CALLS[place]
        elif place in _DATA:
            given = (name for name in readers if getattr(run.configuration, name) is not None)
            found = next(given, "train_batches")
        testing = testing or place == _TESTING
    return found if found is None or not testing else _OF_TEST.get(found, found)


def _place(code: CodeType) -> tuple[str, str] | None:
    with suppress(ValueError):
        return Path(code.co_filename).relative_to(_PACKAGE).as_posix(), code.co_name
    return None


def _named(run: ConfiguredRun, setting: str) -> str:
    value = getattr(run.configuration, setting)
    names = value if isinstance(value, list) else [value]
    shown = ", ".join(repr(name) for name in names if isinstance(name, str))
    return f"`{setting}`{f' ({shown})' if shown else ''}, {run.document.place((setting,))}"


def _files_of(run: ConfiguredRun) -> set[str]:
    """Files of the modules that the configuration names, wherever they are installed."""
    values: list[Any] = list(run.configuration.model_dump().values())
    values += [item for value in values if isinstance(value, list) for item in value]
    modules = {value.partition(":")[0] for value in values if isinstance(value, str) and ":" in value}
    return {str(getattr(sys.modules.get(name), "__file__", None)) for name in modules}


def _users_part(error: Exception, files: set[str]) -> str | None:
    """The traceback of the user's own frames; ``None`` if there is none."""
    told = traceback.TracebackException.from_exception(error)
    seen: list[traceback.TracebackException] = []
    link: traceback.TracebackException | None = told
    while link is not None and link not in seen:
        own = [frame for frame in link.stack if frame.filename in files or is_users(frame.filename)]
        link.stack = traceback.StackSummary.from_list(own)
        seen.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if not any(link.stack for link in seen):
        return None
    return "".join(told.format()).rstrip()


def _kept(run: ConfiguredRun) -> str:
    folder = str(run.run_folder)
    try:
        history = RecordedRun.load(folder).history
    except GfbError:
        return f"Nothing of the run was done yet, and {folder!r} holds none."
    done = f"{len(history.epochs)} epochs and {len(history.steps)} gradient-free steps"
    return (
        f"What was done is kept in {folder!r}: {done}. Once the code is mended, the same command goes on "
        "from there."
    )
