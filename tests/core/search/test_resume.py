"""A run that is stopped and resumed ends as one that never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.files import unsealed
from gfb_brevitas.search import SearchConfig, SearchResult, StartRecord, TrainingConfig
from tests.core.search.small_problem import (
    SEARCH,
    Recorder,
    comparable,
    loader,
    loss,
    network_with_native_scale,
    run,
    searchable,
)
from tests.forked_python import ForkedPython


class Stop(BaseException):
    """Stands for whatever ends a process; nothing catches it."""


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Any, ...]:
    return in_one_go()


def in_one_go(*arguments: Any, **changes: Any) -> tuple[Any, ...]:
    """A run that is not stopped, named as the folders of the others."""
    return comparable(run(*arguments, name="run", **changes))


class StopOnceAtEveryRecord:
    """Raises at every record of a run, the first time it comes."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_") or name == "on_start":
            raise AttributeError(name)

        def method(record: Any) -> None:
            parts = {k: v for k, v in vars(record).items() if k in ("round", "step", "generation", "epoch")}
            key = f"{name} {parts}"
            if key not in self.seen:
                self.seen.add(key)
                raise Stop(key)

        return method


def resumed_until_done(
    folder: Path, models: Iterator[SearchableModel] | None = None, **arguments: Any
) -> tuple[SearchResult, int]:
    """Start the run again and again, each time with a fresh model, until it ends."""
    stops = 0
    while True:
        try:
            model = searchable() if models is None else next(models)
            return run(model, run_folder=folder, resume=True, **arguments), stops
        except Stop:
            stops += 1
            assert stops < 60


def test_stopped_at_every_record(tmp_path: Path, undisturbed: tuple[Any, ...]) -> None:
    stopping = StopOnceAtEveryRecord()
    result, stops = resumed_until_done(tmp_path / "run", callbacks=[stopping])
    assert stops == 1 + 4 * 3 + 4 + 5 + 2 + 1  # calibration, generations, steps, epochs, rounds, end
    assert comparable(result) == undisturbed
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert [unsealed(json.loads(line)) for line in lines] == [record.to_dict() for record in result.history]


@pytest.mark.parametrize("carry", [False, True])
def test_stopped_inside_calibration_generations_reevaluations_epochs_and_validation(
    tmp_path: Path, undisturbed: tuple[Any, ...], carry: bool
) -> None:
    """The loss and the metric raise at some of their calls, in all kinds of places."""
    training, evaluating = count(1), count(1)
    places = set()

    def stopping_loss(model: nn.Module, batch: Any) -> Tensor:
        if next(training) % 7 == 0 if model.training else next(evaluating) % 41 == 0:
            places.add(model.training)
            raise Stop
        return loss(model, batch)

    config = SearchConfig(**{**vars(SEARCH), "carry_distribution": carry})
    result, stops = resumed_until_done(tmp_path / "run", loss=stopping_loss, search=config)
    assert stops >= 4 and places == {True, False}
    assert comparable(result) == (in_one_go(search=config) if carry else undisturbed)


def test_other_optimizers_and_native_scales(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "training": TrainingConfig(optimizer="adam", learning_rate=0.01, schedule="constant")
    }
    expected = in_one_go(searchable(network_with_native_scale()), **changes)
    # Of the models that are passed only the first one's weights count.
    models = (searchable(network_with_native_scale(seed)) for seed in count())
    result, stops = resumed_until_done(
        tmp_path / "run", models=models, callbacks=[StopOnceAtEveryRecord()], **changes
    )
    assert stops > 20
    assert comparable(result) == expected


def test_the_model_of_the_interrupted_run_may_be_used_again(
    tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    model, stopping = searchable(), StopOnceAtEveryRecord()
    for _ in range(9):
        with pytest.raises(Stop):
            run(model, run_folder=tmp_path / "run", resume=True, callbacks=[stopping])
    assert comparable(run(model, run_folder=tmp_path / "run", resume=True)) == undisturbed


def test_ctrl_c_is_raised_again_and_leaves_a_folder_to_resume(
    tmp_path: Path, undisturbed: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    class CtrlC:
        def on_epoch(self, record: Any) -> None:
            if record.epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        run(run_folder=tmp_path / "run", callbacks=[CtrlC()])
    assert "Interrupted after 5 of 12 units" in caplog.text
    assert comparable(run(run_folder=tmp_path / "run", resume=True)) == undisturbed


SCRIPT = """
import sys, time
from pathlib import Path
from tests.core.search.small_problem import run
class Slow:
    def on_generation(self, record):
        time.sleep(0.2)
run(run_folder=Path(sys.argv[1]), resume=True, callbacks=[Slow()])
"""


def test_a_killed_process_is_resumed_by_another(tmp_path: Path, undisturbed: tuple[Any, ...]) -> None:
    folder = tmp_path / "run"
    with ForkedPython(SCRIPT, folder) as process:
        log = folder / "generations" / "round-01" / "step-02.jsonl"
        while not (log.exists() and len(log.read_text().splitlines()) >= 2):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    assert comparable(run(run_folder=folder, resume=True)) == undisturbed


def test_known_generations_are_not_evaluated_again(tmp_path: Path) -> None:
    class StopAtThird:
        def on_generation(self, record: Any) -> None:
            if record.generation == 3:
                raise Stop

    calls: list[int] = []

    def counted(model: nn.Module, batch: Any) -> Tensor:
        calls.append(model.training)
        return loss(model, batch)

    settings = {"rounds": 1, "steps_per_round": 1, "epochs_per_round": 0, "evaluator": "reference"}
    config = SearchConfig(**{**vars(SEARCH), **settings})
    with pytest.raises(Stop):
        run(run_folder=tmp_path / "run", callbacks=[StopAtThird()], search=config)
    result = run(run_folder=tmp_path / "run", resume=True, loss=counted, search=config)
    # Of each candidate a pass of re-evaluation and one of BatchNorm's statistics; the sensitivity estimate.
    candidates = result.history.steps[0].candidates
    assert len(calls) == 2 * 4 * len(candidates) + SEARCH.super_batch_size


def test_callbacks_learn_what_happened_before(tmp_path: Path) -> None:
    class StopAtStep:
        def on_step(self, record: Any) -> None:
            raise Stop

    with pytest.raises(Stop):
        run(run_folder=tmp_path / "run", callbacks=[StopAtStep()])
    recorder = Recorder()
    result = run(run_folder=tmp_path / "run", resume=True, callbacks=[recorder])
    start = recorder.seen[0][1]
    assert isinstance(start, StartRecord) and start.resumed
    assert len(start.history.steps) == 1 and len(start.history.generations) == 3
    heard = [record for name, record in recorder.seen if name not in ("on_start", "on_end")]
    assert [*start.history, *heard] == list(result.history)


def test_a_finished_run_returns_its_result(tmp_path: Path, undisturbed: tuple[Any, ...]) -> None:
    run(run_folder=tmp_path / "run")

    def never(*arguments: Any) -> Any:
        raise AssertionError("nothing is left to do")

    again = run(run_folder=tmp_path / "run", resume=True, loss=never, metric=never)
    assert comparable(again) == undisturbed


def test_resume_starts_a_run_where_there_is_none(tmp_path: Path, undisturbed: tuple[Any, ...]) -> None:
    assert comparable(run(run_folder=tmp_path / "run", resume=True)) == undisturbed


def test_the_storage_of_a_resumed_run_is_that_of_an_undisturbed_one(tmp_path: Path) -> None:
    def trials(storage: optuna.storages.BaseStorage) -> dict[str, Any]:
        names = optuna.get_all_study_names(storage)
        studies = {name: optuna.load_study(study_name=name, storage=storage) for name in names}
        return {name: [(t.params, t.value) for t in study.trials] for name, study in studies.items()}

    whole, parts = optuna.storages.InMemoryStorage(), optuna.storages.InMemoryStorage()
    run(storage=whole, run_folder=tmp_path / "whole" / "run")
    resumed_until_done(tmp_path / "run", storage=parts, callbacks=[StopOnceAtEveryRecord()])
    assert trials(whole) == trials(parts)


def test_data_that_draws_its_own_numbers(tmp_path: Path) -> None:
    """Several passes over shuffled data inside a step that is stopped."""
    data = loader(96)
    expected = in_one_go(train_batches=data)
    result, _ = resumed_until_done(tmp_path / "run", train_batches=data, callbacks=[StopOnceAtEveryRecord()])
    assert comparable(result) == expected


@pytest.mark.parametrize("evaluator", ["reference", "auto"])
def test_a_loss_that_draws_random_numbers(tmp_path: Path, evaluator: str) -> None:
    """Also in evaluation mode, from every global generator."""

    def noisy(model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        noise = torch.randn_like(inputs) + float(np.random.normal()) + random.gauss(0.0, 1.0)  # noqa: NPY002
        return loss(model, (inputs + 0.2 * noise, labels))

    config = SearchConfig(**{**vars(SEARCH), "evaluator": evaluator})
    expected = in_one_go(search=config, loss=noisy)
    assert expected != in_one_go(search=config)
    result, stops = resumed_until_done(
        tmp_path / "run", loss=noisy, search=config, callbacks=[StopOnceAtEveryRecord()]
    )
    assert stops > 20
    assert comparable(result) == expected


def noisy_loss(model: nn.Module, batch: Any) -> Tensor:
    """A loss that draws random numbers, in evaluation too."""
    inputs, labels = batch
    return loss(model, (inputs + 0.5 * torch.randn_like(inputs), labels))


def test_the_default_metric_of_a_loss_that_draws_random_numbers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"loss": noisy_loss, "metric": None, "validation_batches": loader(seed=1)}
    model, before = searchable(), torch.get_rng_state()
    first = in_one_go(model, **settings)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    result, stops = resumed_until_done(tmp_path / "run", callbacks=[StopOnceAtEveryRecord()], **settings)
    assert stops > 10
    assert comparable(result) == first
