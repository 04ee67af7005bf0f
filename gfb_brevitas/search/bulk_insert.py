"""Many trials in one transaction: what ``study.add_trials`` does, without a dozen queries for each trial.

Uses the tables that Optuna declares in ``optuna.storages._rdb.models`` [ours]. These are not public, so
:func:`adder` takes this way only with releases of Optuna that it was written for; otherwise, and for
other storages, it is ``study.add_trials``.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial

from gfb_brevitas.search.storages import quiet_optuna

Rows = list[dict[str, Any]]
Adder = Callable[[optuna.Study, Sequence[FrozenTrial]], None]

_KNOWN_MAJOR_VERSIONS = (5,)
_TABLES = {
    "StudyModel": ("study_id", "study_name"),
    "TrialModel": ("trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"),
    "TrialParamModel": ("trial_id", "param_name", "param_value", "distribution_json"),
    "TrialValueModel": ("trial_id", "objective", "value", "value_type", "value_to_stored_repr"),
    "TrialIntermediateValueModel": (
        *("trial_id", "step", "intermediate_value", "intermediate_value_type"),
        "intermediate_value_to_stored_repr",
    ),
    "TrialUserAttributeModel": ("trial_id", "key", "value_json"),
    "TrialSystemAttributeModel": ("trial_id", "key", "value_json"),
}

_logger = logging.getLogger(__name__)


def adder(storage: optuna.storages.BaseStorage) -> Adder:
    """The fastest way to add finished trials to studies of a storage, in order.

    The function that is returned takes a study of the storage and trials that are valid in it, such as
    those of one generation. In a relational database they all appear at once or, if it raises, not at all.
    """
    journal = getattr(storage, "_backend", None)
    known = int(optuna.__version__.split(".")[0]) in _KNOWN_MAJOR_VERSIONS
    if known and isinstance(storage, JournalStorage) and type(journal) is JournalFileBackend:
        return lambda study, trials: _append(storage, journal, study.study_name, trials)
    database = known_database(storage)
    if database is None:
        return optuna.Study.add_trials
    return lambda study, trials: _insert(database, study.study_name, trials)


def known_database(storage: optuna.storages.BaseStorage) -> optuna.storages.RDBStorage | None:
    """The relational database behind a storage, if there is one and its tables are those known here."""
    database = _relational(storage)
    if database is None:
        return None
    obstacle = _obstacle(database)
    if obstacle is not None:
        _log_once(f"Trials are written one by one, which is slower: {obstacle}.")
        return None
    return database


def change_trial(database: optuna.storages.RDBStorage, trial_id: int, changes: FrozenTrial) -> None:
    """Write into a trial that runs what of it is new or has changed, and its state.

    Args:
        database: As :func:`known_database` finds it.
        trial_id: Id of the trial.
        changes: What is to be written: new parameters; values of epochs and attributes, that replace those
            that are there; and the state.
    """
    from optuna.storages._rdb import models

    replaced: tuple[tuple[Any, str, Iterable[Any]], ...] = (
        (models.TrialIntermediateValueModel, "step", changes.intermediate_values),
        (models.TrialUserAttributeModel, "key", changes.user_attrs),
        (models.TrialSystemAttributeModel, "key", changes.system_attrs),
    )
    with database.scoped_session.session_factory.begin() as session:
        _set_state(session, trial_id, changes)
        for table, column, keys in replaced:
            _delete_rows(session, table, trial_id, column, list(keys))
        _insert_children(session, [trial_id], [changes])


def is_in_memory(storage: optuna.storages.BaseStorage) -> bool:
    """Whether a storage is nowhere but in this process, or even in this thread."""
    if isinstance(storage, optuna.storages.InMemoryStorage):
        return True
    database = _relational(storage)
    if database is None:
        return False
    from sqlalchemy.pool import SingletonThreadPool, StaticPool

    return isinstance(database.engine.pool, SingletonThreadPool | StaticPool)


def _relational(storage: optuna.storages.BaseStorage) -> optuna.storages.RDBStorage | None:
    """The relational database behind a storage, if there is one."""
    # Optuna wraps the storage of a URL in a cache. Trials that it does not know it reads from inside.
    inner = getattr(storage, "_backend", storage)
    return inner if isinstance(inner, optuna.storages.RDBStorage) else None


def _obstacle(database: optuna.storages.RDBStorage) -> str | None:
    """What of Optuna is not as this module knows it; ``None`` if all is."""
    if int(optuna.__version__.split(".")[0]) not in _KNOWN_MAJOR_VERSIONS:
        return f"the tables of Optuna {optuna.__version__} are not known"
    try:
        from optuna.storages._rdb import models
    except ImportError as error:
        return f"Optuna's tables are not where they were ({error})"
    needed = [(getattr(models, table, None), name) for table, names in _TABLES.items() for name in names]
    missing = [name for table, name in needed if not hasattr(table, name)]
    missing += [name for name in ("engine", "scoped_session") if not hasattr(database, name)]
    return f"Optuna's tables have no {', '.join(missing)}" if missing else None


@cache
def _log_once(message: str) -> None:
    _logger.warning(message)


class _Collected(BaseJournalBackend):
    """A journal that keeps what is written to it for another one."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """What was written so far."""
        return iter(self.logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keep them."""
        self.logs.extend(logs)


def _append(
    storage: JournalStorage, journal: JournalFileBackend, name: str, trials: Sequence[FrozenTrial]
) -> None:
    study_id, collected = storage.get_study_id_from_name(name), _Collected()
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        writer = JournalStorage(collected)
        stand_in = writer.create_new_study([optuna.study.StudyDirection.MINIMIZE], "stand-in")
    collected_before = len(collected.logs)
    for trial in trials:
        writer.create_new_trial(stand_in, template_trial=trial)
    logs = [{**log, "study_id": study_id} for log in collected.logs[collected_before:]]
    journal.append_logs(logs)  # locks the file and waits for the disk once


def _insert(database: optuna.storages.RDBStorage, study_name: str, trials: Sequence[FrozenTrial]) -> None:
    with database.scoped_session.session_factory.begin() as session:
        study_id, count = _locked_study(session, study_name)
        rows = [_trial_row(study_id, count + i, trial) for i, trial in enumerate(trials)]
        session.add_all(rows)
        session.flush()  # gives them their ids
        _insert_children(session, [row.trial_id for row in rows], trials)


def _insert_children(session: Any, ids: Sequence[int], trials: Sequence[FrozenTrial]) -> None:
    from optuna.storages._rdb import models

    for table, children in (
        (models.TrialValueModel, list(_value_rows(ids, trials))),
        (models.TrialIntermediateValueModel, list(_intermediate_rows(ids, trials))),
        (models.TrialParamModel, list(_parameter_rows(ids, trials))),
        (models.TrialUserAttributeModel, _attribute_rows(ids, [t.user_attrs for t in trials])),
        (models.TrialSystemAttributeModel, _attribute_rows(ids, [t.system_attrs for t in trials])),
    ):
        if children:
            _insert_rows(session, table.__table__, children)


def _set_state(session: Any, trial_id: int, changes: FrozenTrial) -> None:
    from optuna.storages._rdb.models import TrialModel
    from sqlalchemy import update

    # The first statement, as in _locked_study: SQLite locks at the first write.
    times = {"datetime_complete": changes.datetime_complete} if changes.state.is_finished() else {}
    statement = update(TrialModel.__table__).where(TrialModel.trial_id == trial_id)
    session.execute(statement.values(state=changes.state, **times))


def _delete_rows(session: Any, table: Any, trial_id: int, column: str, keys: Sequence[Any]) -> None:
    from sqlalchemy import delete

    if keys:
        own = table.trial_id == trial_id
        session.execute(delete(table.__table__).where(own, getattr(table, column).in_(keys)))


def _insert_rows(session: Any, table: Any, rows: Rows) -> None:
    from sqlalchemy import JSON, bindparam, column, func, insert, select

    names = list(rows[0])
    if session.get_bind().dialect.name != "postgresql" or any(name.endswith("value_type") for name in names):
        session.execute(insert(table), rows)
        return
    # Its driver handles row by row; one document that the server takes apart takes half the time.
    columns = [column(name, table.c[name].type) for name in names]
    document = func.json_to_recordset(bindparam("rows", type_=JSON))
    source = document.table_valued(*columns).render_derived(with_types=True)
    session.execute(insert(table).from_select(names, select(source)), {"rows": rows})


def _locked_study(session: Any, name: str) -> tuple[int, int]:
    """Id of a study and number of its trials; nobody can add one before the transaction ends."""
    from optuna.storages._rdb.models import StudyModel, TrialModel
    from sqlalchemy import func, select, update

    # An update that changes nothing: SQLite has no SELECT FOR UPDATE, and locks at the first write.
    own = StudyModel.study_name == name
    session.execute(update(StudyModel).where(own).values(study_name=StudyModel.study_name))
    study_id = session.execute(select(StudyModel.study_id).where(own)).scalar_one_or_none()
    if study_id is None:
        raise KeyError(f"The study {name!r} was deleted.")
    count = session.execute(select(func.count()).where(TrialModel.study_id == study_id)).scalar_one()
    return study_id, count


def _trial_row(study_id: int, number: int, trial: FrozenTrial) -> Any:
    from optuna.storages._rdb.models import TrialModel

    return TrialModel(
        study_id=study_id,
        number=number,
        state=trial.state,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
    )


def _value_rows(ids: Sequence[int], trials: Sequence[FrozenTrial]) -> Iterator[dict[str, Any]]:
    from optuna.storages._rdb.models import TrialValueModel

    for trial_id, trial in zip(ids, trials, strict=True):
        for objective, number in enumerate(trial.values or ()):
            value, kind = TrialValueModel.value_to_stored_repr(number)
            yield {"trial_id": trial_id, "objective": objective, "value": value, "value_type": kind}


def _intermediate_rows(ids: Sequence[int], trials: Sequence[FrozenTrial]) -> Iterator[dict[str, Any]]:
    from optuna.storages._rdb.models import TrialIntermediateValueModel as Table

    for trial_id, trial in zip(ids, trials, strict=True):
        for step, number in trial.intermediate_values.items():
            value, kind = Table.intermediate_value_to_stored_repr(number)
            row = {"intermediate_value": value, "intermediate_value_type": kind}
            yield {"trial_id": trial_id, "step": step, **row}


def _parameter_rows(ids: Sequence[int], trials: Sequence[FrozenTrial]) -> Iterator[dict[str, Any]]:
    texts: dict[int, str] = {}  # by identity: trials of a generation share their distributions

    def text(distribution: BaseDistribution) -> str:
        if id(distribution) not in texts:
            texts[id(distribution)] = distribution_to_json(distribution)
        return texts[id(distribution)]

    for trial_id, trial in zip(ids, trials, strict=True):
        distributions = trial.distributions
        for name, value in trial.params.items():
            yield {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distributions[name].to_internal_repr(value),
                "distribution_json": text(distributions[name]),
            }


def _attribute_rows(ids: Sequence[int], attributes: Sequence[dict[str, Any]]) -> Rows:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, row in zip(ids, attributes, strict=True)
        for key, value in row.items()
    ]
