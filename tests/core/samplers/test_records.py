from __future__ import annotations

import json

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from gfb_brevitas.samplers._records import (
    Draw,
    Ledger,
    Update,
    draw_attributes,
    read_draw,
    read_update,
    update_attributes,
)

DRAW = Draw(run="r" * 16, distribution="d" * 16, generation=3, seed=2**63, index=17)


def _update(told: tuple[int, ...], generation: int = 1) -> Update:
    return Update(run="r" * 16, parent="p" * 16, generation=generation, told=told)


def test_draws_are_read_back() -> None:
    assert read_draw(draw_attributes(DRAW)) == DRAW
    assert read_draw({"constraints:a": 1.0}) is None


@given(st.sets(st.integers(0, 10**6), min_size=1))
def test_updates_are_read_back(numbers: set[int]) -> None:
    update = _update(tuple(sorted(numbers)))
    assert read_update({"x": 1, **update_attributes(update)}) == update


def test_long_updates_stay_below_the_limit_of_storages() -> None:
    update = _update(tuple(range(0, 20000, 2)))
    attributes = update_attributes(update)
    assert len(attributes) > 1
    assert max(len(json.dumps(text)) for text in attributes.values()) <= 2046
    assert read_update(attributes) == update
    attributes.popitem()
    assert read_update(attributes) is None


def test_the_name_of_a_distribution_depends_on_its_history() -> None:
    assert _update((1, 2, 3)).child == _update((1, 2, 3)).child
    assert _update((1, 2, 3)).child != _update((1, 2, 4)).child


def _study_with(*states: TrialState) -> optuna.Study:
    study = optuna.create_study()
    for state in states:
        trial = study.ask()
        study._storage.set_trial_system_attr(trial._trial_id, *draw_attributes(DRAW).copy().popitem())
        if state == TrialState.COMPLETE:
            study.tell(trial, 1.0)
        elif state.is_finished():
            study.tell(trial, state=state)
    return study


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_the_ledger_keeps_complete_draws_only() -> None:
    study = _study_with(
        TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE
    )
    study.tell(study.ask(), 0.0)  # not drawn
    ledger = Ledger()
    ledger.refresh(study)
    assert list(ledger.complete[DRAW.run]) == [0, 4]
    study.tell(3, 2.0)
    ledger.refresh(study)
    assert list(ledger.complete[DRAW.run]) == [0, 4, 3]


def test_the_ledger_reads_a_part_of_a_study() -> None:
    study = _study_with(*[TrialState.COMPLETE] * 4)

    class EvenTrials:
        def get_trials(self, deepcopy: bool) -> list[optuna.trial.FrozenTrial]:
            return study.get_trials(deepcopy=deepcopy)[::2]

    ledger = Ledger()
    for _ in range(2):
        ledger.refresh(EvenTrials())  # type: ignore[arg-type]
    assert list(ledger.complete[DRAW.run]) == [0, 2]


def test_of_equal_updates_the_earliest_trial_counts() -> None:
    ledger = Ledger()
    for number in (8, 5, 9):
        ledger.enter(number, _update((0, 1)))
    assert list(ledger.updates["r" * 16].values()) == [(5, _update((0, 1)))]
