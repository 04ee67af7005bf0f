"""Updates that processes recorded at the same time."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from gfb_brevitas.samplers import CmaSampler
from gfb_brevitas.samplers._records import Update, read_draw, read_update, update_attributes

SPACE: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 3.0) for name in ("a", "b")}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _sampler() -> CmaSampler:
    return CmaSampler(search_space=SPACE, seed=0)


def _ours(study: optuna.Study) -> CmaSampler:
    assert isinstance(study.sampler, CmaSampler)
    return study.sampler


def _optimize(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        trial = study.ask(SPACE)
        study.tell(trial, (trial.params["a"] - 1) ** 2 + (trial.params["b"] - 2) ** 2)


def _record(study: optuna.Study, number: int, update: Update) -> None:
    """Write an update as another process would: beside a trial that it runs."""
    trial_id = study.get_trials(deepcopy=False)[number]._trial_id
    for key, text in update_attributes(update).items():
        study._storage.set_trial_system_attr(trial_id, key, text)


def _chain(study: optuna.Study, sampler: CmaSampler) -> str:
    draw = read_draw(study.ask(SPACE).storage.get_all_trials(study._study_id)[-1].system_attrs)
    assert draw is not None
    return draw.distribution


def test_of_two_first_updates_that_of_the_earlier_trial_counts() -> None:
    study = optuna.create_study(sampler=_sampler())
    waiting = study.ask(SPACE)  # number 0
    _optimize(study, 7)
    _optimize(study, 1)
    ours = read_update(study.trials[7].system_attrs)
    assert ours is not None and ours.told == (1, 2, 3, 4, 5, 6)
    theirs = Update(run=ours.run, parent=ours.parent, generation=1, told=(1, 2, 3, 4, 5, 6, 7))
    _record(study, waiting.number, theirs)
    assert _chain(study, _sampler()) == theirs.child
    assert _sampler().state(study).to_json() == _ours(study).state(study).to_json()


def test_the_longer_chain_counts_and_no_trial_is_lost() -> None:
    study = optuna.create_study(sampler=_sampler())
    waiting = study.ask(SPACE)
    _optimize(study, 26)  # updates 1 to 4
    ours = read_update(study.trials[7].system_attrs)
    assert ours is not None
    theirs = Update(run=ours.run, parent=ours.parent, generation=1, told=(1, 2, 3, 4, 5))
    _record(study, waiting.number, theirs)
    before = _ours(study).state(study)
    assert before.generation == 4 and before.evaluations == 24

    for generation in range(2, 6):
        told = tuple(range(5 * generation - 4, 5 * generation + 1))
        theirs = Update(run=ours.run, parent=theirs.child, generation=generation, told=told)
        trial = study.ask(SPACE)
        _record(study, trial.number, theirs)
    after = _ours(study).state(study)
    assert after.generation == 5 and after.evaluations == 25
    assert _sampler().state(study).to_json() == after.to_json()
    _optimize(study, 12)
    told = _ours(study).state(study).evaluations
    complete = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    assert complete - told < 6


def test_an_update_with_a_trial_that_is_not_visible_yet_waits() -> None:
    study = optuna.create_study(sampler=_sampler())
    running = study.ask(SPACE)
    _optimize(study, 4)
    run = read_draw(study.trials[0].system_attrs)
    assert run is not None
    update = Update(run=run.run, parent=run.run, generation=1, told=(0, 1, 2, 3))
    _record(study, study.ask(SPACE).number, update)
    assert _ours(study).generation(study) == 0
    study.tell(running, 1.0)
    assert _ours(study).generation(study) == 1
