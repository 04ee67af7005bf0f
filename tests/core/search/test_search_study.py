"""The study of a whole run, read with Optuna while the run goes on and after."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from gfb_brevitas.errors import ConfigurationError, NonFiniteLossError
from gfb_brevitas.search import SearchConfig, SearchResult
from gfb_brevitas.search.trial_writer import TrialWriter
from tests.core.search.databases import NoPostgresql, make_storage, postgresql
from tests.core.search.small_problem import SEARCH, budgets, loss, run, searchable

ROUNDS_BITS = {"0.weight_quant": 4, "2.act_quant": 4, "4.weight_quant": 4}


class Stop(BaseException):
    """Stands for whatever ends a process."""


BY_LOSS = SearchConfig(**{**vars(SEARCH), "choose_by": "loss"})  # the metric of epochs and rounds alone


def study(storage: optuna.storages.BaseStorage, name: str = "run") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage)


def content(trial: FrozenTrial) -> tuple[Any, ...]:
    """All of a trial but its times and its id."""
    return (
        *(trial.number, trial.state, trial.values, trial.params, trial.distributions),
        *(trial.user_attrs, trial.system_attrs, trial.intermediate_values),
    )


def check(storage: optuna.storages.BaseStorage, result: SearchResult, name: str = "run") -> None:
    """The study of a run with one epoch of pretraining says what its history says."""
    found, history = study(storage, name), result.history
    assert found.direction == optuna.study.StudyDirection.MAXIMIZE
    pretraining, *rounds = found.trials
    assert pretraining.state == TrialState.PRUNED and pretraining.params == ROUNDS_BITS
    assert pretraining.intermediate_values == {1: history.epochs[0].metric}
    assert pretraining.user_attrs["round"] == 0 and not pretraining.user_attrs["feasible"]
    assert len(rounds) == len(history.rounds)
    for trial, record in zip(rounds, history.rounds, strict=True):
        attributes, epochs = trial.user_attrs, [e for e in history.epochs if e.round == record.round]
        assert trial.state == TrialState.COMPLETE and trial.value == record.metric
        assert trial.intermediate_values == {epoch.epoch: epoch.metric for epoch in epochs}
        assert json.loads(attributes["bits"]) == record.allocation
        assert trial.params == {n: b for n, b in record.allocation.items() if n in trial.distributions}
        assert all(isinstance(d, IntDistribution) for d in trial.distributions.values())
        assert attributes["round"] == record.round and attributes["status"] == "done"
        assert attributes["best_metric"] == record.best_metric
        assert attributes["train_loss"] == epochs[-1].train_loss and attributes["epochs"] == epochs[-1].epoch
        steps = [step for step in history.steps if step.round == record.round]
        assert attributes["evaluations"] == sum(step.evaluations for step in steps)
        for row in record.costs:
            assert attributes[f"cost_{row['name']}"] == row["value"]
            assert attributes[f"use_{row['name']}"] == row["use"]
            assert trial.constraints[row["name"]] == pytest.approx(row["use"] - 1)
    best = max(history.rounds, key=lambda r: r.metric)
    assert found.best_trial.user_attrs["round"] == best.round


@pytest.mark.parametrize("kind", ["sqlite", "journal", "memory"])
def test_a_round_is_a_trial(tmp_path: Path, kind: str) -> None:
    storage = make_storage("memory" if kind == "memory" else f"{kind}:///{tmp_path}/studies")
    result = run(storage=storage, run_folder=tmp_path / "run")
    check(storage, result)
    attributes = study(storage).user_attrs
    assert attributes["run_folder"] == str(tmp_path / "run") and attributes["seed"] == 0
    limits = {row["name"]: row["limit"] for row in result.history.rounds[0].costs}
    assert {name: attributes[f"limit_{name}"] for name in limits} == limits


def test_postgresql() -> None:
    try:
        with postgresql() as url:
            storage = make_storage(url)
            check(storage, run(storage=storage, name="run"))
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


def test_a_round_is_followed_while_it_runs(tmp_path: Path) -> None:
    url, seen = f"sqlite:///{tmp_path}/studies.db", []

    class Look:
        def look(self, record: Any) -> None:
            (trial,) = [t for t in study(reader).trials if not t.state.is_finished()][-1:]
            seen.append((trial.user_attrs["round"], trial.user_attrs["status"], len(trial.params)))

        def on_generation(self, record: Any) -> None:
            if record.generation == 1:
                self.look(record)

        on_calibrated = on_step = on_epoch = look

    reader, storage = make_storage(url), make_storage(url)
    with pytest.MonkeyPatch.context() as patch:  # each update is there before the callback looks
        patch.setattr("gfb_brevitas.search.trial_writer.is_in_memory", lambda storage: True)
        run(storage=storage, name="run", callbacks=[Look()])
    first = ["gradient-free step 1 of 2", "gradient-free step 2 of 2", "gradient-free step 2 of 2"]
    assert seen == [
        (0, "epoch 1 of 5", 3),
        (1, "gradient-free step 1 of 2", 0),
        *((1, status, 0) for status in (first[0], *first[1:])),
        *((1, status, 3) for status in ("epoch 2 of 5", "epoch 3 of 5", "the end of the round")),
        *((2, status, 0) for status in (first[0], *first[1:])),
        *((2, status, 3) for status in ("epoch 4 of 5", "epoch 5 of 5", "the end of the round")),
    ]


def test_optuna_s_tools(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    config = SearchConfig(**{**vars(SEARCH), "rounds": 4, "steps_per_round": 1, "evaluations_per_step": 24})
    run(storage=storage, name="run", search=config)
    for name in ("run", "run/round-01/step-01"):
        found = optuna.load_study(study_name=name, storage=storage)
        names = set(ROUNDS_BITS)
        assert set(optuna.importance.get_param_importances(found)) == names
        frame = found.trials_dataframe()
        assert list(frame["value"]) == [t.value for t in found.trials]
        assert "user_attrs_bits" in frame and {f"params_{n}" for n in names} <= set(frame)
        assert found.best_trials and all(max(t.constraints.values()) <= 0 for t in found.best_trials)
        for plot in ("optimization_history", "parallel_coordinate", "slice", "edf", "timeline", "rank"):
            assert getattr(optuna.visualization, f"plot_{plot}")(found).data
        assert optuna.visualization.plot_param_importances(found).data
    curves = optuna.visualization.plot_intermediate_values(
        optuna.load_study(study_name="run", storage=storage)
    )
    assert [list(curve.x) for curve in curves.data] == [[1], [2, 3], [4, 5], [6, 7], [8, 9]]


# --- resuming ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The trials of a run that was not stopped."""
    storage = optuna.storages.InMemoryStorage()
    run(storage=storage, name="run")
    return [content(trial) for trial in study(storage).trials]


def stopping_at(name: str, number: int) -> object:
    """A callback that ends the run at one record."""
    seen = []

    def method(record: Any) -> None:
        seen.append(record)
        if len(seen) == number:
            raise Stop("enough\nof it")

    return type("Stopping", (), {name: staticmethod(method)})()


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
@pytest.mark.parametrize(
    "method, number, status",
    [("on_calibrated", 1, "Stop (enough)"), ("on_step", 3, "Stop (enough)"), ("on_round", 2, None)],
)
def test_a_resumed_run_goes_on_with_its_trials(
    tmp_path: Path, whole: list[tuple[Any, ...]], kind: str, method: str, number: int, status: str | None
) -> None:
    place = f"{kind}:///{tmp_path}/studies"
    callbacks = [stopping_at(method, number)]
    with pytest.raises(Stop):
        run(storage=make_storage(place), run_folder=tmp_path / "run", callbacks=callbacks)
    *_, last = before = study(make_storage(place)).trials
    assert (last.user_attrs["status"] == f"stopped: {status}") == (status is not None)
    attributes = {**study(make_storage(place)).user_attrs}
    run(storage=make_storage(place), run_folder=tmp_path / "run", resume=True)
    after = study(make_storage(place)).trials
    assert [content(trial) for trial in after] == whole
    assert [t._trial_id for t in after[: len(before)]] == [t._trial_id for t in before]
    assert study(make_storage(place)).user_attrs == attributes


def delete(name: str, storage: optuna.storages.BaseStorage) -> None:
    """As somebody who tries again: SQLite refuses at once where two would wait for each other."""
    for _ in range(50):
        try:
            return optuna.delete_study(study_name=name, storage=storage)
        except optuna.exceptions.StorageInternalError:
            time.sleep(0.05)
    raise AssertionError("the study cannot be deleted")


def test_a_deleted_study_is_written_again_from_the_history(
    tmp_path: Path, whole: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    place = f"sqlite:///{tmp_path}/studies.db"

    class Delete:
        def on_round(self, record: Any) -> None:
            if record.round == 1:
                delete("run", make_storage(place))

    run(storage=make_storage(place), run_folder=tmp_path / "run", callbacks=[Delete()])
    assert "'run' was deleted" in caplog.text and "3 of 'run'" in caplog.text
    result = run(storage=make_storage(place), run_folder=tmp_path / "run", resume=True)
    trials = study(make_storage(place)).trials
    assert [content(trial) for trial in trials] == whole
    durations = [trial.duration.total_seconds() for trial in trials if trial.duration]
    assert sum(durations) == pytest.approx(result.seconds, abs=0.1)


def test_a_storage_that_was_away_gets_the_trials_when_the_run_is_resumed(
    tmp_path: Path, whole: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(optuna.storages.InMemoryStorage):
        here = False

        def create_new_trial(self, *arguments: Any, **more: Any) -> int:
            if not self.here:
                raise OSError("connection refused")
            return super().create_new_trial(*arguments, **more)

    monkeypatch.setattr(
        "gfb_brevitas.search.run_studies.TrialWriter", lambda *args: TrialWriter(*args, patience=0.0)
    )
    storage, folder = Away(), tmp_path / "run"
    run(storage=storage, run_folder=folder)
    assert not study(storage).trials
    kept = make_storage(f"journal:///{folder}/unwritten.journal")  # with the trials of all studies
    assert [content(trial) for trial in study(kept).trials] == whole
    assert study(kept).best_trial.number == max(range(1, 3), key=lambda i: whole[i][2][0])
    storage.here = True
    run(storage=storage, run_folder=folder, resume=True)
    assert [content(trial) for trial in study(storage).trials] == whole
    assert not (folder / "unwritten.journal").exists()


def test_trials_of_others_are_left_alone(tmp_path: Path, whole: list[tuple[Any, ...]]) -> None:
    storage = optuna.storages.InMemoryStorage()

    class Guest:
        def on_calibrated(self, record: Any) -> None:
            study(storage).add_trial(optuna.create_trial(value=0.0, user_attrs={"mine": 1}))

    run(storage=storage, run_folder=tmp_path / "run", callbacks=[Guest()])
    run(storage=storage, run_folder=tmp_path / "run", resume=True)
    own = [trial for trial in study(storage).trials if "round" in trial.user_attrs]
    assert len(own) == 3 and len(study(storage).trials) == 4
    assert [content(trial)[1:] for trial in own] == [trial[1:] for trial in whole]


def test_another_run_s_study_is_not_touched() -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="run", storage=storage)
    with pytest.raises(ConfigurationError, match="study 'run' already"):
        run(storage=storage, name="run")
    assert not study(storage).trials


# --- other kinds of runs -----------------------------------------------------------------------


def test_a_fixed_allocation_that_exceeds_the_budgets() -> None:
    storage = optuna.storages.InMemoryStorage()
    model = searchable()
    run(model, storage=storage, name="run", allocation=model.space.uniform(8))
    found = study(storage)
    assert [t.state for t in found.trials] == [TrialState.PRUNED, TrialState.COMPLETE, TrialState.COMPLETE]
    assert all(set(t.params.values()) == {8} and t.constraints["weight_size"] > 0 for t in found.trials)
    assert "method" not in found.user_attrs
    assert optuna.get_all_study_names(storage) == ["run"]
    with pytest.raises(ValueError, match="[Ff]easible"):
        found.best_trial  # noqa: B018


@pytest.mark.parametrize("uniform_bits, state", [(3, TrialState.COMPLETE), (4, TrialState.PRUNED)])
def test_pretraining_that_uses_the_budgets_up_may_be_the_best(uniform_bits: int, state: TrialState) -> None:
    storage = optuna.storages.InMemoryStorage()
    config = SearchConfig(**{**vars(SEARCH), "pretrain_bits": 3})
    limits = budgets(beta=1.0, uniform_bits=uniform_bits)
    result = run(storage=storage, name="run", search=config, budgets=limits, metric=lambda model: 1.0)
    assert study(storage).trials[0].state == state
    assert (result.best_epoch <= SEARCH.pretrain_epochs) == (state == TrialState.COMPLETE)


def without_epochs() -> dict[str, Any]:
    return {"search": SearchConfig(**{**vars(SEARCH), "pretrain_epochs": 0, "epochs_per_round": 0})}


@pytest.mark.parametrize("calibrate", [True, False])
def test_a_run_without_epochs(calibrate: bool) -> None:
    storage = optuna.storages.InMemoryStorage()
    run(storage=storage, name="run", calibrate=calibrate, **without_epochs())
    trials = study(storage).trials
    assert [t.user_attrs["round"] for t in trials] == [1, 2]
    assert all(t.state == TrialState.COMPLETE and not t.intermediate_values for t in trials)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_metric_that_is_not_finite(tmp_path: Path, value: float) -> None:
    storage = make_storage(f"sqlite:///{tmp_path}/studies.db")
    metrics = iter([0.1, 0.2, 0.3, value, value])
    run(storage=storage, name="run", metric=lambda model: next(metrics), search=BY_LOSS)
    *_, last = study(storage).trials
    assert last.state == TrialState.FAIL
    assert list(last.intermediate_values) == [4, 5]
    assert study(storage).best_value == 0.3


def test_a_run_that_diverges_says_so_in_its_trial() -> None:
    storage = optuna.storages.InMemoryStorage()
    calls: list[int] = []

    def diverging(model: Any, batch: Any) -> Any:
        calls.append(model.training)
        return loss(model, batch) * (math.nan if sum(calls) > 14 else 1.0)

    with pytest.raises(NonFiniteLossError):
        run(storage=storage, name="run", loss=diverging)
    *_, last = study(storage).trials
    assert last.state == TrialState.RUNNING
    assert last.user_attrs["status"].startswith("stopped: NonFiniteLossError (")


def test_without_budgets() -> None:
    storage = optuna.storages.InMemoryStorage()
    run(storage=storage, name="run", budgets=[])
    assert all(not trial.constraints for trial in study(storage).trials)
    assert study(storage).best_trial.value is not None


def test_other_releases_of_optuna_are_written_to_through_its_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr("gfb_brevitas.search.bulk_insert._KNOWN_MAJOR_VERSIONS", (99,))
    storage = make_storage(f"sqlite:///{tmp_path}/studies.db")
    run(storage=storage, name="run")
    assert [content(trial) for trial in study(storage).trials] == whole


Failing = Callable[..., Any]


@pytest.mark.parametrize("failing", ["set_trial_user_attr", "set_trial_state_values", "create_new_trial"])
@pytest.mark.parametrize("late", [False, True])
def test_an_update_that_fails_half_way_is_done_again(
    monkeypatch: pytest.MonkeyPatch, whole: list[tuple[Any, ...]], failing: str, late: bool
) -> None:
    monkeypatch.setattr("gfb_brevitas.search.trial_writer._FIRST_DELAY", 0.001)
    storage, calls = optuna.storages.InMemoryStorage(), []
    original: Failing = getattr(storage, failing)

    def every_third_fails(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) % 3 == 1 and not late:
            raise OSError("the connection was dropped")
        result = original(*arguments, **more)
        if len(calls) % 3 == 1:
            raise OSError("the connection was dropped")
        return result

    monkeypatch.setattr(storage, failing, every_third_fails)
    run(storage=storage, name="run", budgets=budgets())
    assert [content(trial) for trial in study(storage).trials] == whole
