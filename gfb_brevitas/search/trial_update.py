"""Brings the trials of a study to what they should be, whatever of them is stored already.

For studies whose trials are followed while they run, such as that of a whole search. Doing it again changes
nothing, so it can be done after every failure and after every resume [ours]. A relational database gets all
changes of a trial in one transaction, where its tables are known (:mod:`gfb_brevitas.search.bulk_insert`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from gfb_brevitas.search import bulk_insert
from gfb_brevitas.search.bulk_insert import known_database

ROUND_ATTRIBUTE = "round"
"""User attribute that says which trial is which; others in the study are left alone."""

Update = Callable[[optuna.Study, Sequence[FrozenTrial]], None]
_Value = TypeVar("_Value")
_Key = TypeVar("_Key")


def updater(storage: optuna.storages.BaseStorage) -> Update:
    """What brings trials of a storage up to date.

    The function that is returned takes a study of the storage and trials with a :data:`ROUND_ATTRIBUTE`; of
    several with the same one the last counts. Trials that are finished in the storage stay as they are.
    """
    database = known_database(storage)

    def update(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        stored = {_round(trial): trial for trial in study.get_trials(deepcopy=False)}
        for wanted in {_round(trial): trial for trial in trials}.values():
            present = stored.get(_round(wanted))
            if present is None:
                storage.create_new_trial(study._study_id, template_trial=wanted)
            elif not present.state.is_finished():
                changes = _changes(present, wanted)
                if database is None:
                    _set(storage, present._trial_id, changes)
                else:
                    bulk_insert.change_trial(database, present._trial_id, changes)

    return update


def _round(trial: FrozenTrial) -> Any:
    return trial.user_attrs.get(ROUND_ATTRIBUTE)


def _changes(present: FrozenTrial, wanted: FrozenTrial) -> FrozenTrial:
    """What of a trial is not stored yet, or is stored with another value."""
    changes = copy(wanted)
    # Parameters are set once. The mappings are replaced, not changed: they are those of ``wanted``.
    new = {name: value for name, value in wanted.params.items() if name not in present.params}
    changes.distributions = {name: wanted.distributions[name] for name in new}
    changes.params = new
    changes.intermediate_values = _different(present.intermediate_values, wanted.intermediate_values)
    changes.user_attrs = _different(present.user_attrs, wanted.user_attrs)
    changes.system_attrs = _different(present.system_attrs, wanted.system_attrs)
    return changes


def _different(present: Mapping[_Key, _Value], wanted: Mapping[_Key, _Value]) -> dict[_Key, _Value]:
    return {
        key: value for key, value in wanted.items() if key not in present or not _same(present[key], value)
    }


def _same(first: Any, second: Any) -> bool:
    both_nan = isinstance(first, float) and isinstance(second, float) and math.isnan(first + second)
    return bool(first == second) or (both_nan and math.isnan(first) and math.isnan(second))


def _set(storage: optuna.storages.BaseStorage, trial_id: int, changes: FrozenTrial) -> None:
    for name, value in changes.params.items():
        distribution = changes.distributions[name]
        storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
    for step, number in changes.intermediate_values.items():
        storage.set_trial_intermediate_value(trial_id, step, number)
    for key, attribute in changes.user_attrs.items():
        storage.set_trial_user_attr(trial_id, key, attribute)
    for key, attribute in changes.system_attrs.items():
        storage.set_trial_system_attr(trial_id, key, attribute)
    if changes.state != TrialState.RUNNING:
        storage.set_trial_state_values(trial_id, changes.state, changes.values)
