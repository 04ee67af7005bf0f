from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.samplers import CmaSampler, CmaState
from gfb_brevitas.samplers._records import Update, read_update

SPACE: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 3.0) for name in ("conv", "act", "fc")}
OPTIMUM = {"conv": 0.4, "act": 2.3, "fc": 1.1}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _distance(parameters: Mapping[str, float]) -> float:
    return sum((parameters[name] - OPTIMUM[name]) ** 2 for name in SPACE)


def _objective(trial: Trial) -> float:
    return _distance({name: trial.suggest_float(name, 0.0, 3.0) for name in SPACE})


def _sampler(**changes: Any) -> CmaSampler:
    return CmaSampler(**{"search_space": SPACE, "seed": 0, **changes})


def _study(**changes: Any) -> optuna.Study:
    return optuna.create_study(sampler=_sampler(**changes))


def _ours(study: optuna.Study) -> CmaSampler:
    assert isinstance(study.sampler, CmaSampler)
    return study.sampler


def _tell_asked(study: optuna.Study, trials: list[Trial]) -> None:
    for trial in trials:
        study.tell(trial, _distance(trial.params))


def _updates(study: optuna.Study) -> list[Update]:
    found = [read_update(trial.system_attrs) for trial in study.get_trials(deepcopy=False)]
    return [update for update in found if update is not None]


def _drawn_again(study: optuna.Study, **changes: Any) -> CmaState:
    """The distribution as a sampler that has seen nothing yet reads it from the study."""
    return _sampler(**changes).state(study)


# --- start -------------------------------------------------------------------------------------


def test_first_draws_have_the_given_mean_and_step_size() -> None:
    mean = {"conv": 1.0, "act": 2.0, "fc": 1.5}
    study = _study(mean=mean, step_size=0.05)
    state = _ours(study).state(study)
    assert state.parameters == pytest.approx(mean, abs=1e-12)
    assert state.step_size == 0.05
    assert state.scales.tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_array_equal(state.covariance, np.eye(3))
    draws = np.array([list(study.ask(SPACE).params.values()) for _ in range(800)])
    np.testing.assert_allclose(draws.mean(axis=0), [1.0, 2.0, 1.5], atol=4 * 0.05 / np.sqrt(800))
    np.testing.assert_allclose(draws.std(axis=0), 0.05, rtol=0.1)
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.15


def test_a_start_on_a_bound_stays_in_the_box() -> None:
    study = _study(mean=dict.fromkeys(SPACE, 3.0), step_size=0.5)
    draws = np.array([list(study.ask(SPACE).params.values()) for _ in range(50)])
    assert _ours(study).state(study).parameters == pytest.approx(dict.fromkeys(SPACE, 3.0))
    assert np.all((draws >= 0) & (draws <= 3)) and draws.min() < 2.5


def test_without_a_search_space_the_second_trial_is_the_first_drawn() -> None:
    sampler = CmaSampler(seed=0)
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(ConfigurationError, match="no distribution yet"):
        sampler.state(study)
    assert sampler.generation(study) == 0 and sampler.should_stop(study) is None
    study.optimize(_objective, n_trials=60)
    assert sampler.state(study).names == ("act", "conv", "fc")
    assert sampler.state(study).evaluations == 56  # 59 trials drawn; 8 populations of 7


def test_only_numbers_with_more_than_one_value_are_searched() -> None:
    space = {
        "bits": IntDistribution(1, 8),
        "one": IntDistribution(4, 4),
        "kind": CategoricalDistribution(["a", "b"]),
    }
    sampler = CmaSampler(search_space=space, seed=1)
    study = optuna.create_study(sampler=sampler)
    trials = [study.ask(space) for _ in range(20)]
    assert sampler.state(study).names == ("bits",)
    assert {trial.params["one"] for trial in trials} == {4}
    assert {trial.params["kind"] for trial in trials} == {"a", "b"}


def test_nothing_to_search() -> None:
    space = {"a": IntDistribution(2, 2), "b": FloatDistribution(1.0, 1.0)}
    sampler = CmaSampler(search_space=space)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_int("a", 2, 2) + trial.suggest_float("b", 1, 1), n_trials=5)
    assert study.best_value == 3.0
    assert sampler.should_stop(study) is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"step_size": 0.0}, "step_size must be a positive number or None; got 0.0"),
        ({"step_size": float("nan")}, "step_size"),
        ({"population_size": 2}, "at least 3 or None; got 2"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"search_space": {"conv": (0.0, 3.0)}}, r"Optuna distributions; got \(0.0, 3.0\) for 'conv'"),
        ({"constraint_penalty": "death"}, r"'feasible-first'\); got 'death'"),
        ({"mean": {"conv": 1.0}}, r"missing: \['act', 'fc'\]"),
        ({"mean": {**OPTIMUM, "cnov": 1.0}}, r"unknown: \['cnov'\]"),
        ({"mean": {**OPTIMUM, "fc": 3.5}}, "'fc' must be from 0.0 to 3.0; got 3.5"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _sampler(**arguments)


# --- search ------------------------------------------------------------------------------------


def _best(sampler: optuna.samplers.BaseSampler, objective: Callable[[Trial], float], n_trials: int) -> float:
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=n_trials)
    return study.best_value


def test_converges_on_a_shifted_ellipsoid() -> None:
    shift = np.linspace(-3, 3, 10)
    axes = 10 ** np.linspace(0, 3, 10)

    def ellipsoid(trial: Trial) -> float:
        x = np.array([trial.suggest_float(f"x{i}", -5, 5) for i in range(10)])
        return float(np.sum(axes * (x - shift) ** 2))

    assert _best(CmaSampler(seed=0), ellipsoid, 2000) < 1e-4
    assert _best(optuna.samplers.RandomSampler(seed=0), ellipsoid, 2000) > 10


def test_converges_on_a_rounded_function() -> None:
    def integers(trial: Trial) -> float:
        x = [trial.suggest_int(f"k{i}", 0, 20) for i in range(6)]
        y = [trial.suggest_float(f"r{i}", 0.0, 20.0) for i in range(6)]
        return float(
            sum(
                (a - 3 - i) ** 2 + (round(b) - 15 + i) ** 2 for i, (a, b) in enumerate(zip(x, y, strict=True))
            )
        )

    ours = [_best(CmaSampler(seed=seed), integers, 500) for seed in range(3)]
    random = [_best(optuna.samplers.RandomSampler(seed=seed), integers, 500) for seed in range(3)]
    assert max(ours) <= 10 < 50 < min(random)


def test_optimum_in_a_corner() -> None:
    def corner(trial: Trial) -> float:
        return sum(trial.suggest_float(name, 0.0, 3.0) for name in SPACE)

    study = _study()
    study.optimize(corner, n_trials=300)
    assert study.best_value < 1e-3
    assert _ours(study).state(study).mean == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)


def test_logarithmic_parameters_are_searched_by_their_logarithm() -> None:
    def objective(trial: Trial) -> float:
        rate = trial.suggest_float("rate", 1e-7, 1.0, log=True)
        return (np.log10(rate) + 5) ** 2 + abs(trial.suggest_int("size", 1, 1000, log=True) - 30)

    assert _best(CmaSampler(seed=3), objective, 200) < 0.01


def test_maximize() -> None:
    study = optuna.create_study(sampler=_sampler(), direction="maximize")
    study.optimize(lambda trial: -_objective(trial), n_trials=200)
    assert study.best_value > -1e-2


@pytest.mark.parametrize("distribution", [FloatDistribution(0.0, 3.0), IntDistribution(1, 100, log=True)])
def test_one_parameter(distribution: FloatDistribution | IntDistribution) -> None:
    goal = 2.2 if isinstance(distribution, FloatDistribution) else 37
    sampler = CmaSampler(search_space={"x": distribution}, seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(200):
        trial = study.ask({"x": distribution})
        study.tell(trial, abs(trial.params["x"] - goal))
    assert study.best_value < 0.01
    assert sampler.state(study).names == ("x",) and sampler.generation(study) == 50


@pytest.mark.parametrize("size", [3, 4, 30])
def test_population_size(size: int) -> None:
    study = _study(population_size=size)
    study.optimize(_objective, n_trials=2 * size)
    assert _ours(study).generation(study) == 2
    assert [len(update.told) for update in _updates(study)] == [size]  # the next trial will hold the second


def test_numpy_numbers_as_settings() -> None:
    plain, numpy = (
        _study(step_size=0.5, population_size=6),
        _study(step_size=np.float32(0.5), population_size=np.int64(6), seed=np.int64(0)),
    )
    for study in (plain, numpy):
        study.optimize(_objective, n_trials=20)
    assert [t.params for t in plain.trials] == [t.params for t in numpy.trials]


def test_equal_seeds_draw_alike_and_others_do_not() -> None:
    def parameters(seed: int | None) -> list[dict[str, Any]]:
        study = _study(seed=seed)
        study.optimize(_objective, n_trials=30)
        return [trial.params for trial in study.trials]

    assert parameters(5) == parameters(5)
    assert parameters(5) != parameters(6)
    assert parameters(None) != parameters(None)


def test_numpy_random_state_is_left_alone() -> None:
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    study = _study()
    study.optimize(_objective, n_trials=20)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# --- trials in any order -------------------------------------------------------------------------


def test_batches_of_asks() -> None:
    study = _study()
    sampler = _ours(study)
    for generation in range(20):
        assert sampler.generation(study) == generation
        _tell_asked(study, [study.ask(SPACE) for _ in range(7)])
    assert study.best_value < 0.05
    assert [len(update.told) for update in _updates(study)] == [7] * 19
    assert sampler.state(study).evaluations == 140


def test_the_order_of_tells_does_not_matter_within_a_generation() -> None:
    states = []
    for order in (slice(None), slice(None, None, -1)):
        study = _study()
        for _ in range(5):
            _tell_asked(study, [study.ask(SPACE) for _ in range(7)][order])
        states.append(_drawn_again(study).to_json())
    assert states[0] == states[1]


def test_late_trials_take_part_in_a_later_update() -> None:
    study = _study()
    late = [study.ask(SPACE) for _ in range(9)]
    _tell_asked(study, late[2:])
    later = [study.ask(SPACE) for _ in range(7)]
    _tell_asked(study, [late[1], *later, late[0]])
    study.ask(SPACE)
    assert [update.told for update in _updates(study)] == [tuple(range(2, 9)), (0, 1, *range(9, 16))]
    assert _ours(study).state(study).evaluations == 16


def test_late_trials_alone_make_no_update() -> None:
    study = _study()
    late = [study.ask(SPACE) for _ in range(20)]
    _tell_asked(study, late[:7])
    fresh = [study.ask(SPACE)]
    _tell_asked(study, late[7:])
    fresh += [study.ask(SPACE) for _ in range(3)]
    assert _ours(study).generation(study) == 1
    _tell_asked(study, fresh[:3])
    assert _ours(study).generation(study) == 1
    _tell_asked(study, fresh[3:])
    assert _ours(study).generation(study) == 2
    assert _ours(study).state(study).evaluations == 24


@pytest.mark.parametrize("n_jobs", [4, 16])
def test_threads_use_every_trial_once(n_jobs: int) -> None:
    def slow(trial: Trial) -> float:
        value = _objective(trial)
        time.sleep((trial.number * 7919 % 13) / 4000)
        return value

    study = _study()
    study.optimize(slow, n_trials=200, n_jobs=n_jobs)
    told = [number for update in _updates(study) for number in update.told]
    assert len(told) == len(set(told))
    drawn_later = _ours(study).state(study)
    assert 200 - drawn_later.evaluations < 7 + n_jobs
    assert study.best_value < 0.1  # which trials a generation holds depends on the threads
    assert _drawn_again(study).to_json() == drawn_later.to_json()


def test_failed_pruned_and_running_trials_hold_up_nothing() -> None:
    study = _study()
    for number in range(70):
        trial = study.ask(SPACE)
        if number % 5 == 1:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 5 == 2:
            trial.report(-1e9, 0)
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 5 == 3:
            continue
        else:
            _tell_asked(study, [trial])
    told = {number for update in _updates(study) for number in update.told}
    assert {number % 5 for number in told} == {0, 4}
    assert _ours(study).state(study).evaluations == 28


def test_all_trials_failing() -> None:
    study = _study()
    study.optimize(lambda trial: float("nan") * _objective(trial), n_trials=20)
    assert _ours(study).generation(study) == 0


def test_infinite_values() -> None:
    def walled(trial: Trial) -> float:
        value = _objective(trial)
        return value if trial.params["act"] > 1.5 else float("inf")

    study = _study()
    study.optimize(walled, n_trials=250)
    assert study.best_value < 1e-2
    study = _study()
    study.optimize(lambda trial: float("inf") + 0 * _objective(trial), n_trials=40)
    assert np.all(np.isfinite(_ours(study).state(study).covariance))


def test_foreign_trials_do_not_move_the_distribution() -> None:
    plain, mixed = _study(), _study()
    for study in (plain, mixed):
        study.optimize(_objective, n_trials=10)
    before = _ours(mixed).state(mixed).to_json()
    mixed.add_trials(
        optuna.create_trial(params=OPTIMUM, distributions=dict(SPACE), value=0.0) for _ in range(30)
    )
    mixed.enqueue_trial(OPTIMUM)
    _tell_asked(mixed, [mixed.ask(SPACE)])
    assert _ours(mixed).state(mixed).to_json() == before
    mixed.optimize(_objective, n_trials=20)
    assert _ours(plain).state(plain).to_json() == before
    assert _ours(mixed).state(mixed).evaluations == 28


def test_partly_enqueued_trials_count_with_the_parameters_that_they_have() -> None:
    study = _study(mean=dict.fromkeys(SPACE, 1.5), step_size=0.3)
    for _ in range(7):
        study.enqueue_trial({"conv": 2.9})
        trial = study.ask(SPACE)
        assert trial.params["conv"] == 2.9
        _tell_asked(study, [trial])
    state = _ours(study).state(study)
    assert state.evaluations == 7
    assert state.parameters["conv"] > 1.8
    assert _drawn_again(study, mean=dict.fromkeys(SPACE, 1.5), step_size=0.3).to_json() == state.to_json()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_partial_fixed_sampler() -> None:
    inner = _sampler()
    study = optuna.create_study(sampler=optuna.samplers.PartialFixedSampler({"conv": 0.4}, inner))
    study.optimize(_objective, n_trials=150)
    assert study.best_value < 0.02


def test_parameters_that_the_objective_leaves_out() -> None:
    study = _study()
    study.optimize(lambda trial: (trial.suggest_float("conv", 0.0, 3.0) - 1.0) ** 2, n_trials=80)
    assert study.best_value < 1e-3
    assert _ours(study).generation(study) == 11


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_pruner_with_brackets() -> None:
    def objective(trial: Trial) -> float:
        value = _objective(trial)
        for step in range(4):
            trial.report(value, step)
        return value

    pruner = optuna.pruners.HyperbandPruner(max_resource=4)
    study = optuna.create_study(sampler=_sampler(), pruner=pruner)
    study.optimize(objective, n_trials=60)
    assert _updates(study)


# --- reading without disturbing ------------------------------------------------------------------


def test_reading_the_state_changes_nothing() -> None:
    watched, left_alone = _study(), _study()
    for study in (watched, left_alone):
        for _ in range(6):
            trials = [study.ask(SPACE) for _ in range(14)]
            _tell_asked(study, trials[:9])
            if study is watched:
                sampler = _ours(study)
                assert sampler.state(study).generation == sampler.generation(study)
                sampler.should_stop(study)
            _tell_asked(study, trials[9:])
    assert [t.params for t in watched.trials] == [t.params for t in left_alone.trials]
    assert [u.told for u in _updates(watched)] == [u.told for u in _updates(left_alone)]


def test_should_stop_names_the_reason() -> None:
    study = _study()
    sampler = _ours(study)
    assert sampler.should_stop(study) is None
    study.optimize(_objective, n_trials=70)
    assert sampler.should_stop(study) is None
    study.optimize(lambda trial: 0 * _objective(trial), n_trials=70)
    reason = sampler.should_stop(study)
    assert reason is not None and "tolflatfitness" in reason
    assert _sampler().should_stop(study) == reason


def test_stopping_by_callback() -> None:
    sampler = _sampler()
    study = optuna.create_study(sampler=sampler)

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if sampler.should_stop(study):
            study.stop()

    study.optimize(_objective, n_trials=5000, callbacks=[stop])
    assert len(study.trials) < 1500 and study.best_value < 1e-9


# --- carrying over, constraints, copies ------------------------------------------------------------


def test_distribution_is_carried_over_to_another_study() -> None:
    first = _study()
    first.optimize(_objective, n_trials=70)
    state = _ours(first).state(first)
    carried = _sampler(distribution=CmaState.from_json(state.to_json()))
    second = optuna.create_study(sampler=carried)
    assert carried.generation(second) == 10
    again = carried.state(second)
    for name in ("mean", "covariance", "covariance_path", "step_size_path", "scales"):
        np.testing.assert_allclose(getattr(again, name), getattr(state, name), rtol=1e-9, atol=1e-12)
    second.optimize(_objective, n_trials=70)
    fresh = _study()
    fresh.optimize(_objective, n_trials=70)
    assert second.best_value < fresh.best_value / 3
    assert carried.state(second).evaluations == 140


def test_mean_and_step_size_take_precedence_over_what_is_carried() -> None:
    first = _study()
    first.optimize(_objective, n_trials=70)
    state = _ours(first).state(first)
    sampler = _sampler(distribution=state, mean=OPTIMUM, step_size=0.25)
    moved = sampler.state(optuna.create_study(sampler=sampler))
    assert moved.parameters == pytest.approx(OPTIMUM) and moved.step_size == 0.25
    np.testing.assert_allclose(moved.covariance, state.covariance)


def test_distribution_of_other_parameters_is_refused() -> None:
    state = CmaSampler(search_space={"x": FloatDistribution(0, 1)}).state(optuna.create_study())
    with pytest.raises(ConfigurationError, match=r"\['x'\]"):
        _sampler(distribution=state)


def test_other_settings_begin_their_own_run_in_a_study() -> None:
    study = _study()
    study.optimize(_objective, n_trials=21)
    other = _sampler(step_size=0.7)
    assert other.generation(study) == 0
    study.sampler = other
    study.optimize(_objective, n_trials=14)
    assert (other.generation(study), _sampler().generation(study)) == (2, 3)


def test_the_order_of_names_does_not_matter() -> None:
    study = _study(mean=OPTIMUM)
    study.optimize(_objective, n_trials=14)
    turned = _sampler(
        search_space=dict(reversed(SPACE.items())), mean=dict(reversed(OPTIMUM.items())), seed=3
    )
    assert turned.state(study).to_json() == _ours(study).state(study).to_json()


@pytest.mark.parametrize("mode, feasible", [("feasible-first", True), ("ignore", False)])
def test_constraints(mode: str, feasible: bool) -> None:
    def objective(trial: Trial) -> float:
        value = _objective(trial)
        trial.set_constraint("size", trial.params["act"] - 1.0)  # the optimum has 2.3
        return value

    study = _study(constraint_penalty=mode)
    study.optimize(objective, n_trials=300)
    mean = _ours(study).state(study).parameters
    assert mean["act"] == pytest.approx(1.0 if feasible else 2.3, abs=0.02)
    if feasible:
        assert study.best_trial.params["act"] <= 1.0 and study.best_value < 1.3**2 + 0.1


def test_copies_and_pickles_go_on_from_the_study() -> None:
    study = _study()
    study.optimize(_objective, n_trials=25)
    expected = _ours(study).state(study).to_json()
    assert copy.deepcopy(_ours(study)).state(study).to_json() == expected
    assert pickle.loads(pickle.dumps(_ours(study))).state(study).to_json() == expected


def test_one_sampler_for_two_studies() -> None:
    sampler = _sampler()
    studies = [optuna.create_study(sampler=sampler) for _ in range(2)]
    for _ in range(3):
        for study in studies:
            study.optimize(_objective, n_trials=10)
    assert [t.params for t in studies[0].trials] == [t.params for t in studies[1].trials]
    assert sampler.state(studies[0]).to_json() == sampler.state(studies[1]).to_json()


def test_other_users_of_pycma_keep_its_verbosity() -> None:
    from cma.utilities import utils

    before = utils.global_verbosity
    utils.global_verbosity = 1
    try:
        study = _study()  # with populations that pycma would warn about
        for _ in range(3):
            _tell_asked(study, [study.ask(SPACE) for _ in range(20)])
        study.ask(SPACE)
        assert utils.global_verbosity == 1
    finally:
        utils.global_verbosity = before


def test_nothing_is_written_to_the_working_directory(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = _study()
    study.optimize(_objective, n_trials=30)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": 3}, "mean must map parameter names to numbers; got 3"),
        ({"mean": {"a": "x"}}, "mean must map parameter names to numbers; got .*'x'"),
        ({"search_space": ["a"]}, r"search_space must map .*; got \['a'\]"),
        ({"step_size": "wide"}, "step_size must be a positive number or None; got 'wide'"),
        ({"population_size": 7.5}, "population_size must be a whole number of at least 3 or None; got 7.5"),
        ({"seed": "now"}, "seed must be a whole number of at least 0 or None; got 'now'"),
        ({"distribution": "state"}, "distribution must be a CmaState"),
    ],
)
def test_settings_of_other_types_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CmaSampler(**settings)
