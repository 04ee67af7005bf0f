"""The user's Optuna storage: opening it, and the studies of runs in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna

from gfb_brevitas.errors import ConfigurationError

Storage = str | optuna.storages.BaseStorage
RUN_ATTRIBUTE = "gfb_run"
"""User attribute of a study that holds the id of the run that it belongs to."""

_POSTGRESQL = "postgresql"


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
    except ImportError as error:
        raise ConfigurationError(_driver_missing(storage)) from error
    except Exception as error:  # of whichever database driver
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"The storage {storage!r} cannot be opened: {reason}. Check the URL, that its folder exists and "
            "that the driver of the database is installed."
        ) from error


def new_study(storage: optuna.storages.BaseStorage, name: str, run_id: str | None) -> optuna.Study:
    """Create a study and mark it as a run's.

    Raises:
        ConfigurationError: If there is a study of that name.
    """
    try:
        with quiet_optuna():
            study = optuna.create_study(storage=storage, study_name=name)
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ConfigurationError(_exists_already(name)) from error
    if run_id is not None:
        study.set_user_attr(RUN_ATTRIBUTE, run_id)
    return study


def delete_studies(storage: optuna.storages.BaseStorage, names: Sequence[str], run_id: str) -> None:
    """Delete those studies of a run that exist, so that it can write them again when it is resumed.

    A study without a mark and without trials is taken for the run's: it was killed in between.

    Raises:
        ConfigurationError: If a study of that name is another run's; nothing is deleted then.
    """
    existing = sorted(set(optuna.get_all_study_names(storage)) & set(names))
    for name in existing:
        if not belongs_to(storage, name, run_id):
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
            f"The storage is a {scheme!r} database and its driver is not installed. Run: pip install "
            "'gfb-brevitas[postgresql]', and write the URL as 'postgresql+psycopg://USER@HOST/DATABASE'."
        )
    return (
        f"The storage is a {scheme!r} database and its driver is not installed. Install the Python driver "
        "that SQLAlchemy names for it."
    )
