from __future__ import annotations

import json
import math
import random
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import WeightSize
from gfb_brevitas.errors import (
    AllocationError,
    ConfigurationError,
    EmptyDataError,
    InfeasibleBudgetError,
    NonFiniteLossError,
)
from gfb_brevitas.files import unsealed
from gfb_brevitas.rules import Fix
from gfb_brevitas.search import (
    CalibrationRecord,
    Callback,
    EpochRecord,
    SearchConfig,
    SearchResult,
    TrainingConfig,
)
from tests.core.search.small_problem import (
    FEATURES,
    SEARCH,
    Recorder,
    accuracy,
    budgets,
    comparable,
    loader,
    loss,
    network,
    network_with_native_scale,
    points,
    run,
    searchable,
)

BY_LOSS = SearchConfig(**{**vars(SEARCH), "choose_by": "loss"})  # the metric of epochs and rounds alone


def search(**changes: Any) -> SearchConfig:
    return SearchConfig(**{**vars(SEARCH), **changes})


@pytest.fixture(scope="module")
def result() -> SearchResult:
    """A run as most people make it, with enough training to be worth something."""
    return run(search=search(pretrain_epochs=4, epochs_per_round=4, evaluations_per_step=60))


def test_the_result_is_feasible_and_useful(result: SearchResult) -> None:
    constraints = Constraints(result.searchable.space, budgets())
    assert constraints.feasible(result.searchable.space.bits(result.allocation)[None, :])[0]
    assert all(row.feasible and row.use <= 1 for row in result.costs)
    assert result.metric > 0.8


def test_the_result_is_a_plain_brevitas_model(result: SearchResult) -> None:
    assert not any(type(m).__module__.startswith("gfb_brevitas") for m in result.model.modules())
    assert not result.model.training
    assert accuracy(result.model) == result.metric
    with torch.no_grad():
        assert accuracy(result.searchable) == result.metric
    assert result.searchable.allocation == result.allocation


def test_the_state_with_the_best_metric_among_feasible_ones_is_returned(result: SearchResult) -> None:
    eligible = [epoch for epoch in result.history.epochs if epoch.feasible]
    assert result.metric == max(epoch.metric for epoch in eligible)
    assert result.best_epoch == next(e.epoch for e in eligible if e.metric == result.metric)
    assert not any(epoch.feasible or epoch.best for epoch in result.history.epochs if epoch.round == 0)
    assert any(epoch.best for epoch in eligible)


def test_the_order_of_a_run(result: SearchResult) -> None:
    kinds = [record.kind for record in result.history if record.kind != "generation"]
    a_round = ["step"] * 2 + ["epoch"] * 4 + ["round"]
    assert kinds == ["calibration"] + ["epoch"] * 4 + a_round * 2
    assert [(s.round, s.step) for s in result.history.steps] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [e.epoch for e in result.history.epochs] == list(range(1, 13))
    rates = [e.learning_rate for e in result.history.epochs]
    cosine = [0.05 * 0.5 * (1 + math.cos(math.pi * e / 12)) for e in range(12)]
    assert rates == pytest.approx(cosine)  # one schedule over pretraining and all rounds


def test_rounds_record_metric_costs_and_allocation(result: SearchResult) -> None:
    for number, record in enumerate(result.history.rounds, start=1):
        last = [e for e in result.history.epochs if e.round == number][-1]
        step = [s for s in result.history.steps if s.round == number][-1]
        assert record.metric == last.metric
        assert record.allocation == step.allocation
        assert [row["name"] for row in record.costs] == ["weight_size", "mean_activation_bits"]
    assert result.history.rounds[-1].best_metric == result.metric


def test_summary(result: SearchResult) -> None:
    summary = json.loads(json.dumps(result.summary()))
    assert summary["metric"] == result.metric
    assert summary["allocation"] == dict(result.allocation)
    assert summary["evaluations"] == sum(step.evaluations for step in result.history.steps)
    assert summary["epochs"] == 12 and result.seconds > 0


def test_equal_runs_are_equal_whatever_is_drawn_before() -> None:
    first = run()
    torch.rand(7)
    np.random.rand(3)  # noqa: NPY002
    second = run()
    assert comparable(first) == comparable(second)
    assert comparable(run(search=search(seed=1))) != comparable(first)


def test_the_global_generators_are_left_as_they_were() -> None:
    model = searchable()
    before = torch.get_rng_state(), random.getstate()
    run(model)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_the_uniform_baseline_trains_as_long_and_need_not_be_feasible() -> None:
    model = searchable()
    uniform = model.space.uniform(4)
    result = run(model, allocation=uniform)
    assert result.allocation == uniform and not any(row.feasible for row in result.costs)
    assert not result.history.steps
    assert [e.learning_rate for e in result.history.epochs] == [e.learning_rate for e in run().history.epochs]
    assert result.metric == max(e.metric for e in result.history.epochs)


def test_a_baseline_over_impossible_budgets_is_only_reported() -> None:
    model = searchable()
    impossible = [Budget(cost=WeightSize(), limit=1.0)]
    assert run(model, allocation=model.space.uniform(2), budgets=impossible).costs[0].use > 1


def test_without_budgets_everything_is_feasible() -> None:
    result = run(budgets=())
    assert result.costs == ()
    assert result.metric == max(e.metric for e in result.history.epochs)  # pretraining included


def test_search_without_training() -> None:
    result = run(search=search(pretrain_epochs=0, epochs_per_round=0, rounds=1))
    assert not result.history.epochs
    assert result.best_epoch == 0
    assert result.history.rounds[0].metric == result.metric


def test_initial_bits() -> None:
    def first(changes: dict[str, Any], **settings: Any) -> list[int]:
        config = search(rounds=1, pretrain_epochs=0, epochs_per_round=0, **settings)
        record = run(search=config, **changes).history[0]
        return list(record.allocation.values())

    pairs = [Budget(cost=WeightSize(), beta=0.9, uniform_bits=(3, 5))]
    assert first({"budgets": pairs}) == [3, 5, 3]
    assert first({"budgets": pairs}, initial_bits=6) == [6, 6, 6]
    assert first({"budgets": pairs}, initial_bits=(6, 7)) == [6, 7, 6]
    assert first({"budgets": [Budget(cost=WeightSize(), limit=500.0)]}) == [4, 4, 4]


def test_default_metric_is_the_negative_loss_on_validation_data() -> None:
    inputs, labels = points(64, seed=2).tensors
    batches = [(inputs, labels)]
    result = run(metric=None, validation_batches=batches)
    with torch.no_grad():
        assert result.metric == pytest.approx(-float(loss(result.searchable, batches[0])))


def test_default_metric_without_validation_data_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert run(metric=None).metric < 0
    assert "the search data decides" in caplog.text


def test_a_metric_that_is_not_finite_never_wins_over_one_that_is() -> None:
    values = iter([math.nan, math.nan, 0.3, math.nan, 0.1])
    result = run(metric=lambda model: next(values), search=BY_LOSS)
    assert result.metric == 0.3


def test_a_run_whose_metrics_are_all_nan_still_ends_feasible() -> None:
    result = run(metric=lambda model: math.nan)
    assert math.isnan(result.metric) and all(row.feasible for row in result.costs)
    assert result.summary()["metric"] is None


def test_a_metric_must_be_a_number() -> None:
    with pytest.raises(ConfigurationError, match="`metric` must return a number; got None"):
        run(metric=lambda model: None)


def test_search_and_calibration_data_of_their_own() -> None:
    used: dict[str, set[int]] = {"train": set(), "search": set()}

    def noting(model: nn.Module, batch: Any) -> Tensor:
        used["train" if model.training else "search"].add(int(batch[2]))
        return loss(model, batch)

    def tagged(tag: int) -> list[Any]:
        return [(*batch, tag) for batch in loader()]

    run(loss=noting, train_batches=tagged(1), search_batches=tagged(2), calibration_batches=tagged(3))
    # In evaluation mode training data only says what losses are compared with.
    assert used == {"train": {1}, "search": {1, 2, 3}}


class Endless(IterableDataset[Any]):
    """A stream without length; its DataLoader has no truth value."""

    def __iter__(self) -> Any:
        data = points(64)
        yield from (data[i] for i in range(64))


def test_data_without_length() -> None:
    stream: DataLoader[Any] = DataLoader(Endless(), batch_size=16)
    result = run(train_batches=stream, search_batches=stream, metric=None, validation_batches=stream)
    assert len(result.history.epochs) == 5


def test_a_carried_distribution_goes_on_over_steps_and_rounds() -> None:
    fresh, carried = run(), run(search=search(carry_distribution=True))
    assert comparable(fresh) != comparable(carried)
    assert fresh.history.generations[:3] != () and len(carried.history.steps) == 4


def test_a_space_without_freedom_is_trained() -> None:
    result = run(searchable(network(), rules=(Fix("*", 3),)), budgets=budgets(beta=1.0))
    assert set(result.allocation.values()) == {3}
    assert not result.history.generations


def test_a_network_with_native_scales() -> None:
    result = run(searchable(network_with_native_scale()))
    assert accuracy(result.model) == result.metric > 0.5


def test_no_calibration() -> None:
    assert run(calibrate=False).history[0].kind == "epoch"


# --- what is checked first ---------------------------------------------------------------------


def never(*arguments: Any) -> Any:
    raise AssertionError("nothing may run before the arguments are checked")


def test_budgets_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleBudgetError, match="weight_size"):
        run(
            budgets=[Budget(cost=WeightSize(), limit=1.0)],
            loss=never,
            metric=never,
            train_batches=[],
            run_folder=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["train_batches", "search_batches", "validation_batches", "calibration_batches"]
)
def test_empty_data(name: str) -> None:
    with pytest.raises(EmptyDataError, match=f"`{name}` must yield"):
        run(loss=never, **cast("Any", {name: []}))


def test_a_generator_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="`train_batches` must be iterable more than once"):
        run(loss=never, train_batches=(batch for batch in loader()))


def test_an_allocation_that_does_not_fit() -> None:
    with pytest.raises(AllocationError, match="lacks"):
        run(loss=never, allocation={"0.weight_quant": 3})


def test_resume_needs_a_folder() -> None:
    with pytest.raises(ConfigurationError, match="`resume=True` needs the `run_folder`"):
        run(loss=never, resume=True)


def test_a_loss_that_is_not_finite_in_training(tmp_path: Path) -> None:
    def diverging(model: nn.Module, batch: Any) -> Tensor:
        bad = model.training and recorder.names.count("on_epoch") == 2
        return loss(model, batch) * (math.nan if bad else 1.0)

    recorder = Recorder()
    with pytest.raises(
        NonFiniteLossError, match=r"in epoch 3, batch 1 .*end of epoch 2 is in '.*latest\.pt'"
    ):
        run(loss=diverging, callbacks=[recorder], run_folder=tmp_path / "run")
    recorder.seen.clear()
    with pytest.raises(NonFiniteLossError, match="Without a run folder nothing of the run is kept"):
        run(loss=diverging, callbacks=[recorder])


# --- callbacks ---------------------------------------------------------------------------------


def test_callbacks_hear_of_everything_in_order() -> None:
    recorder = Recorder()
    result = run(callbacks=[recorder])
    step = ["on_generation"] * 3 + ["on_step"]
    a_round = step * 2 + ["on_epoch"] * 2 + ["on_round"]
    assert recorder.names == ["on_start", "on_calibrated", "on_epoch", *a_round * 2, "on_end"]
    assert [r for name, r in recorder.seen if name not in ("on_start", "on_end")] == list(result.history)
    start, end = recorder.seen[0][1], recorder.seen[-1][1]
    assert not start.resumed and start.configuration["search"]["rounds"] == 2
    assert end.summary == result.summary()


def test_a_callback_needs_no_base_class() -> None:
    class Metrics:
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_epoch(self, record: EpochRecord) -> None:
            self.values.append(record.metric)

    metrics = Metrics()
    result = run(callbacks=[metrics, Callback()])
    assert metrics.values == [epoch.metric for epoch in result.history.epochs]


def test_an_exception_in_a_callback_ends_the_run() -> None:
    class Failing(Callback):
        def on_step(self, record: Any) -> None:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run(callbacks=[Failing()])


# --- storage -----------------------------------------------------------------------------------


def test_every_step_is_a_study_and_names_sort() -> None:
    storage = optuna.storages.InMemoryStorage()
    result = run(storage=storage, name="digits")
    names = sorted(optuna.get_all_study_names(storage))
    assert names == ["digits", *(step.study for step in result.history.steps)]
    assert names[1] == "digits/round-01/step-01"
    for step in result.history.steps:
        assert len(optuna.load_study(study_name=step.study, storage=storage).trials) == step.evaluations


def test_a_second_run_needs_another_name() -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="gfb/round-02/step-01", storage=storage)
    with pytest.raises(ConfigurationError, match=r"study 'gfb/round-02/step-01' already.*another `name`"):
        run(storage=storage, loss=never)
    run(storage=storage, name="second")


def test_a_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        run(storage=f"sqlite:///{tmp_path}/no/such/folder/db", loss=never)


# --- the folder --------------------------------------------------------------------------------


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run(run_folder=folder)
    assert result.run_folder == folder
    assert BitAllocation.load(folder / "allocation.json") == result.allocation
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metric"] == result.metric and summary["version"] == 1
    records = [unsealed(json.loads(line)) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert records == [record.to_dict() for record in result.history]
    config = json.loads((folder / "config.json").read_text())
    assert config["configuration"]["search"]["seed"] == 0 and "torch" in config["versions"]
    assert "Round 2: metric" in (folder / "run.log").read_text()
    best = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["content"]
    fresh = searchable()
    fresh.load_state_dict(best["model"])
    fresh.set_allocation(best["allocation"])
    fresh.eval()
    with torch.no_grad():
        assert accuracy(fresh) == result.metric
    assert not list(folder.rglob("*.tmp"))


def test_a_run_in_a_folder_is_the_same_as_without(tmp_path: Path) -> None:
    with_folder, without = comparable(run(run_folder=tmp_path / "run")), comparable(run(name="run"))
    assert with_folder == without


def test_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        run(run_folder=tmp_path / "file" / "run", loss=never)


def test_the_frozen_model_trains_on_with_brevitas_alone(result: SearchResult) -> None:
    model = result.model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    value = loss(model, next(iter(loader())))
    value.backward()
    optimizer.step()
    result.model.eval()
    assert result.model(torch.zeros(1, FEATURES)).shape == (1, 4)


@pytest.mark.cuda
def test_on_cuda(tmp_path: Path) -> None:
    def on_device(model: nn.Module) -> float:
        inputs, labels = (t.cuda() for t in points(256, seed=1).tensors)
        return float((model(inputs).argmax(dim=1) == labels).float().mean())

    model = searchable().cuda()
    result = run(model, metric=on_device, training=TrainingConfig(learning_rate=0.05), run_folder=tmp_path)
    assert next(result.model.parameters()).is_cuda
    assert on_device(result.model) == result.metric
    again = run(
        searchable().cuda(),
        metric=on_device,
        run_folder=tmp_path,
        resume=True,
        training=TrainingConfig(learning_rate=0.05),
    )
    assert again.metric == result.metric


def test_calibration_holds_one_batch_at_a_time() -> None:
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def batches() -> Iterator[Any]:
        nonlocal alive, most
        for inputs, labels in loader(256):
            alive += 1
            weakref.finalize(inputs, gone)
            most = max(most, alive)
            yield inputs, labels

    result = run(calibration_batches=batches)
    assert next(r.batches for r in result.history if isinstance(r, CalibrationRecord)) == 8
    assert most <= 3
