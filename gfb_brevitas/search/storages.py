"""The user's Optuna storage: opening it, and the studies of runs in it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna

from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_brevitas.extras import install_command
from gfb_brevitas.search.time_limit import within

Storage = str | optuna.storages.BaseStorage
RUN_ATTRIBUTE = "gfb_run"
"""User attribute of a study that holds the id of the run that it belongs to."""

LONGEST_OPENING_S = 60.0
"""Seconds after which a storage that does not answer when a run starts is an error."""

_POSTGRESQL = "postgresql"
_MOST_ATTEMPTS = 10
# What SQLite, PostgreSQL and MySQL say of tables, types and rows that another process was faster to make.
_CREATED_MEANWHILE = ("already exists", "UNIQUE constraint", "duplicate key", "Duplicate entry")


@dataclass(frozen=True, kw_only=True)
class StudyHead:
    """What a study is made with.

    Attributes:
        direction: Whether its values are minimised or maximised.
        attributes: User attributes.
    """

    direction: Literal["minimize", "maximize"] = "minimize"
    attributes: Mapping[str, Any] = field(default_factory=dict)


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
        if storage.startswith("sqlite"):  # gives up a lock by itself; one in memory is this thread's
            return _opened(storage)
        return within(LONGEST_OPENING_S, lambda: _opened(storage))
    except ImportError as error:
        raise ConfigurationError(_driver_missing(storage)) from error
    except Exception as error:  # of whichever database driver
        raise ConfigurationError(
            f"The storage {_without_password(storage)!r} cannot be opened: {first_line(error)}. Check the "
            "URL, that its folder exists, that the driver of the database is installed and that the server "
            "runs."
        ) from error


def absolute_storage(url: str, folder: Path) -> str:
    """A URL that means the same from any folder.

    Args:
        url: The URL of a storage.
        folder: Where the relative path of a SQLite file begins.

    Example:
        >>> absolute_storage("sqlite:///run.db", Path("/data"))
        'sqlite:////data/run.db'
    """
    found = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(file:)?([^?]+)(\?.*)?", url)
    if found is None or found[3].startswith(":memory:"):
        return url
    return f"{found[1]}{found[2] or ''}{(folder / found[3]).absolute()}{found[4] or ''}"


def _opened(url: str) -> optuna.storages.BaseStorage:
    """A storage, also where another process creates the tables of a new database at the same moment."""
    for _ in range(_MOST_ATTEMPTS - 1):
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # of whichever database driver
            if not any(sign in str(error) for sign in _CREATED_MEANWHILE):
                raise
            time.sleep(random.Random().uniform(0.0, 0.2))  # not of the global generator
    return optuna.storages.get_storage(url)


def new_study(
    storage: optuna.storages.BaseStorage, name: str, run_id: str | None, head: StudyHead | None = None
) -> optuna.Study:
    """Create a study and mark it as a run's.

    Raises:
        ConfigurationError: If there is a study of that name.
    """
    head = StudyHead() if head is None else head
    try:
        with quiet_optuna():
            study = optuna.create_study(storage=storage, study_name=name, direction=head.direction)
            if storage.get_n_trials(study._study_id):
                # Of a study with this number that Optuna deleted while somebody wrote to it, in SQLite.
                optuna.delete_study(study_name=name, storage=storage)
                study = optuna.create_study(storage=storage, study_name=name, direction=head.direction)
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ConfigurationError(_exists_already(name)) from error
    mark(study, run_id, head)
    return study


def mark(study: optuna.Study, run_id: str | None, head: StudyHead) -> None:
    """Mark a study as a run's, and write its attributes."""
    if run_id is not None:
        study.set_user_attr(RUN_ATTRIBUTE, run_id)
    for key, value in head.attributes.items():
        study.set_user_attr(key, value)


def delete_studies(storage: optuna.storages.BaseStorage, names: Sequence[str], run_id: str) -> None:
    """Delete those studies of a run that exist, so that it can write them again when it is resumed.

    A study without a mark and without trials is taken for the run's: it was killed in between.

    Raises:
        ConfigurationError: If a study of that name is another run's; nothing is deleted then. If the
            storage fails.
    """
    with _answering():
        _delete_studies(storage, names, run_id)


def _delete_studies(storage: optuna.storages.BaseStorage, names: Sequence[str], run_id: str) -> None:
    for name in require_own_studies(storage, names, run_id):
        optuna.delete_study(study_name=name, storage=storage)


def require_own_studies(
    storage: optuna.storages.BaseStorage, names: Sequence[str], run_id: str
) -> Sequence[str]:
    """Check that studies, where they exist, are those of a run; returns the names of those that exist.

    Raises:
        ConfigurationError: If a study of that name is another run's, or the storage fails.
    """
    with _answering():
        existing = sorted(set(optuna.get_all_study_names(storage)) & set(names))
        others = [name for name in existing if not belongs_to(storage, name, run_id)]
    if others:
        raise ConfigurationError(
            f"The storage holds a study {others[0]!r} of another run. Give the resumed run another `name` or "
            "`storage`, or delete the study."
        )
    return existing


def require_no_studies(storage: optuna.storages.BaseStorage, names: Sequence[str]) -> None:
    """Check that a new run does not mix with an old one.

    Raises:
        ConfigurationError: If a study of that name exists, or the storage fails.
    """
    with _answering():
        existing = sorted(set(optuna.get_all_study_names(storage)) & set(names))
    if existing:
        raise ConfigurationError(_exists_already(existing[0]))


def belongs_to(storage: optuna.storages.BaseStorage, name: str, run_id: str | None) -> bool:
    """Whether an existing study is a run's: it is marked so, or the run had no time to mark it."""
    study_id = storage.get_study_id_from_name(name)
    mark = storage.get_study_user_attrs(study_id).get(RUN_ATTRIBUTE)
    return bool(mark == run_id or (mark is None and not storage.get_n_trials(study_id)))


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without the message that Optuna prints for every new study."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def first_line(error: BaseException) -> str:
    """What a database said, without Optuna's and SQLAlchemy's own words around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).strip().split("\n")[0].rstrip(".")


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except GfbError:
        raise
    except Exception as error:  # of whichever database driver
        raise ConfigurationError(
            f"The storage fails: {first_line(error)}. Nothing of the run was changed: start it again when "
            "the storage works, or without `storage`."
        ) from error


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


def _exists_already(name: str) -> str:
    return (
        f"The storage holds a study {name!r} already. Give the run another `name`, delete the study, or "
        "resume the run that it belongs to."
    )


def _driver_missing(url: str) -> str:
    # Not the URL itself: it may hold a password.
    scheme = url.split(":", 1)[0]
    if scheme.split("+")[0] == _POSTGRESQL:
        return (
            f"The storage is a {scheme!r} database and its driver is not installed. Write the URL as "
            "'postgresql+psycopg://USER@HOST/DATABASE', and install the driver with: "
            f"{install_command('postgresql')}"
        )
    return (
        f"The storage is a {scheme!r} database and its driver is not installed. Install the Python driver "
        "that SQLAlchemy names for it."
    )
