from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.search import TrainingConfig, TrainingEpoch
from gfb_brevitas.search.checkpoint import CheckpointStore
from gfb_brevitas.search.loop_state import plain_state
from tests.core.search.plain_loop import RATE, PlainLoop, looped
from tests.core.search.small_problem import (
    SEARCH,
    comparable,
    loader,
    network_with_native_scale,
    run,
    searchable,
)
from tests.core.search.test_resume import Stop, StopOnceAtEveryRecord

SAME = TrainingConfig(optimizer="sgd", learning_rate=RATE, schedule="constant")


class StopAfterEpochs:
    """Raises after every epoch, the first time it was trained."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def on_epoch(self, record: Any) -> None:
        if record.epoch not in self.seen:
            self.seen.add(record.epoch)
            raise Stop


def resumed_until_done(folder: Path, loop: Callable[[Any], Any] = PlainLoop, **changes: Any) -> Any:
    """Start a run with a new model and loop again and again until it ends."""
    arguments = {"callbacks": [StopAfterEpochs()], **changes}
    for _ in range(60):
        try:
            return looped(loop, run_folder=folder, resume=True, **arguments)
        except Stop:
            continue
    raise AssertionError("the run did not end")


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Any, ...]:
    return comparable(looped())


def test_the_same_training_written_as_a_loop_gives_the_same_run(undisturbed: tuple[Any, ...]) -> None:
    assert comparable(run(training=SAME, name="run")) == undisturbed


def test_stopped_at_every_record_and_resumed(tmp_path: Path, undisturbed: tuple[Any, ...]) -> None:
    result = resumed_until_done(tmp_path / "run", callbacks=[StopOnceAtEveryRecord()])
    assert comparable(result) == undisturbed


def test_stopped_inside_epochs_and_resumed(tmp_path: Path, undisturbed: tuple[Any, ...]) -> None:
    steps = []

    class Stopping(PlainLoop):
        def step(self, model: nn.Module, epoch: TrainingEpoch, batch: Any) -> float:
            steps.append(batch)
            if len(steps) % 6 == 0:
                raise Stop
            return super().step(model, epoch, batch)

    result = resumed_until_done(tmp_path / "run", Stopping, callbacks=())
    assert len(steps) > 20
    assert comparable(result) == undisturbed


def test_quantizers_with_a_scale_of_their_own(tmp_path: Path) -> None:
    whole = looped(module=network_with_native_scale())
    parts = resumed_until_done(tmp_path / "run", module=network_with_native_scale())
    assert comparable(parts) == comparable(whole)


def test_the_state_of_the_loop_is_what_makes_a_resumed_run_the_same(
    tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    class Forgetful(PlainLoop):
        def state_dict(self) -> Any:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            assert state == {}

    assert comparable(looped(Forgetful)) == undisturbed
    result = resumed_until_done(tmp_path / "run", Forgetful)
    assert comparable(result) != undisturbed


def test_random_draws_of_the_loop_repeat(tmp_path: Path) -> None:
    class Drawing(PlainLoop):
        def step(self, model: nn.Module, epoch: TrainingEpoch, batch: Any) -> float:
            noise = 0.1 * torch.randn(batch[0].shape) + 0.1 * float(np.random.random())  # noqa: NPY002
            return super().step(model, epoch, (batch[0] + noise, batch[1]))

    model = searchable()
    before = torch.get_rng_state()
    whole = comparable(run(model, training=Drawing(model), name="run"))
    assert torch.equal(torch.get_rng_state(), before)
    assert comparable(resumed_until_done(tmp_path / "run", Drawing)) == whole


def test_what_a_loop_is_told() -> None:
    seen: list[tuple[Any, ...]] = []

    class Noting(PlainLoop):
        def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
            orders = [[batch[1].tolist() for batch in epoch.batches] for _ in range(2)]
            assert orders[0] == orders[1] and model.training
            seen.append((epoch.index, epoch.total, epoch.seed, str(orders[0])))
            return super().run_epoch(model, epoch).train_loss

    result = looped(Noting)
    assert [(index, total) for index, total, _, _ in seen] == [(i, 5) for i in range(5)]
    assert len({seed for _, _, seed, _ in seen}) == len({order for *_, order in seen}) == 5
    assert all(math.isnan(record.learning_rate) for record in result.history.epochs)


def test_a_checkpoint_loads_without_running_code(tmp_path: Path) -> None:
    looped(run_folder=tmp_path)
    document = torch.load(tmp_path / "checkpoints" / "latest.pt", weights_only=True)
    assert len(document["content"]["optimizer"]["optimizer"]["state"]) == len(list(searchable().parameters()))
    assert CheckpointStore(tmp_path / "checkpoints").load().optimizer["optimizer"]["param_groups"]


STATE = {
    "tensors": (torch.arange(3), [torch.eye(2, dtype=torch.bfloat16)]),
    "numbers": [1, 2.5, True, None, "text", b"bytes", complex(1, 2), math.inf],
    "rate": np.float64(0.1),
    "groups": OrderedDict(dtype=torch.float16, device=torch.device("cpu"), shape=torch.Size([2, 3])),
    7: {0.5: {True: nn.Parameter(torch.ones(2))}},
}


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    plain = plain_state(STATE, "state")
    torch.save(plain, tmp_path / "state.pt")
    back = torch.load(tmp_path / "state.pt", weights_only=True)
    assert str(back) == str(plain)
    assert type(back["rate"]) is float and back["rate"] == 0.1
    assert back["groups"] == {"dtype": torch.float16, "device": torch.device("cpu"), "shape": (2, 3)}
    assert torch.equal(back["tensors"][1][0], torch.eye(2, dtype=torch.bfloat16))


class Pair(NamedTuple):
    first: int
    second: int


@pytest.mark.parametrize(
    "state, says",
    [
        (None, r"Keeping\.state_dict\(\) must return a dict; it returned 'NoneType'"),
        ({"a": [0, np.zeros(2)]}, r"Keeping\.state_dict\(\)\['a'\]\[1\] is of type numpy\.ndarray"),
        ({"a": {"b": {1, 2}}}, r"\['a'\]\['b'\] is of type builtins\.set"),
        ({"a": Pair(1, 2)}, r"\['a'\] is of type .*\.Pair"),
        ({"a": np.int64(2)}, r"\['a'\] is of type numpy\.int64"),
        ({"a": torch.Generator()}, r"\['a'\] is of type torch\._C\.Generator"),
        ({(1, 2): 3}, r"a key of Keeping\.state_dict\(\) is of type builtins\.tuple"),
    ],
)
def test_a_state_that_a_checkpoint_cannot_hold(tmp_path: Path, state: Any, says: str) -> None:
    class Keeping(PlainLoop):
        def state_dict(self) -> Any:
            return state

        def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
            raise AssertionError("nothing may be trained before the state is refused")

    with pytest.raises(gfb.ConfigurationError, match=says):
        looped(Keeping, run_folder=tmp_path)


class Returning(PlainLoop):
    """Trains, and returns something of its own."""

    value: Any = None

    def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
        super().run_epoch(model, epoch)
        return self.value


def returning(value: Any) -> Callable[[Any], Any]:
    return type("Returning", (Returning,), {"value": value})


@pytest.mark.parametrize(
    "value",
    [1, np.float32(0.5), torch.tensor(0.5), torch.ones(1, requires_grad=True) * 0.5],
    ids=["int", "numpy", "tensor", "tensor with gradient"],
)
def test_numbers_of_all_kinds_are_losses(value: Any) -> None:
    assert {record.train_loss for record in looped(returning(value)).history.epochs} == {
        float(torch.as_tensor(value).detach())
    }


@pytest.mark.parametrize(
    "value",
    [None, "0.5", True, [0.5], torch.ones(2), gfb.EpochOutcome(train_loss=None), {"loss": 0.5}],  # type: ignore[arg-type]
    ids=["None", "text", "bool", "list", "two numbers", "outcome", "dict"],
)
def test_a_return_that_is_no_number(value: Any) -> None:
    with pytest.raises(
        gfb.ConfigurationError,
        match=r"Returning\.run_epoch must return the mean training loss, a number, .* in epoch 1 it returned",
    ):
        looped(returning(value))


def test_a_loss_or_a_weight_that_is_not_finite(tmp_path: Path) -> None:
    class Diverging(PlainLoop):
        def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
            outcome = super().run_epoch(model, epoch)
            if epoch.index == 2:
                next(model.parameters()).data[0] = math.nan
            return outcome

    with pytest.raises(gfb.NonFiniteLossError, match=r"returned for epoch 1 is nan\. Without a run folder"):
        looped(returning(math.nan))
    with pytest.raises(
        gfb.NonFiniteLossError, match=r"A weight became NaN or infinite in epoch 3\. Everything up to the end"
    ):
        looped(Diverging, run_folder=tmp_path)


def test_a_loop_leaves_the_widths_and_the_parameters() -> None:
    class Widening(PlainLoop):
        def run_epoch(self, model: Any, epoch: TrainingEpoch) -> Any:
            model.set_allocation(model.space.uniform(7))
            return super().run_epoch(model, epoch)

    class Replacing(PlainLoop):
        def run_epoch(self, model: Any, epoch: TrainingEpoch) -> Any:
            outcome = super().run_epoch(model, epoch)
            model.model[4].bias = None
            return outcome

    with pytest.raises(gfb.ConfigurationError, match="must leave the bit widths as they are"):
        looped(Widening)
    with pytest.raises(gfb.ConfigurationError, match="parameters under the same names"):
        looped(Replacing)


@pytest.mark.parametrize(
    "training, says",
    [
        (object(), "which lacks run_epoch, state_dict, load_state_dict"),
        (nn.Linear(2, 2), r"got Linear\(in_features=2.*, which lacks run_epoch\."),
        (PlainLoop, "`training` must be an object; got the class 'PlainLoop'"),
        ({"learning_rate": 0.1}, "`training` must be a TrainingConfig or a training loop"),
        (lambda model, epoch: 0.0, "which lacks run_epoch"),
    ],
)
def test_what_is_not_a_training_loop(training: Any, says: str) -> None:
    with pytest.raises(gfb.ConfigurationError, match=says):
        run(training=training)


def test_loops_are_known_by_their_methods() -> None:
    assert isinstance(PlainLoop(nn.Linear(2, 2)), gfb.TrainingLoop)
    assert not isinstance(nn.Linear(2, 2), gfb.TrainingLoop)


def test_a_run_is_resumed_with_a_loop_of_its_kind(tmp_path: Path) -> None:
    class OtherLoop(PlainLoop):
        pass

    class NewerLoop(PlainLoop):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.scaler = state["scaler"]

    class StopAtEpoch:
        def on_epoch(self, record: Any) -> None:
            raise Stop

    NewerLoop.__qualname__ = PlainLoop.__qualname__
    with pytest.raises(Stop):
        looped(run_folder=tmp_path, callbacks=[StopAtEpoch()])
    with pytest.raises(gfb.CheckpointError, match="OtherLoop"):
        looped(OtherLoop, run_folder=tmp_path, resume=True)
    with pytest.raises(gfb.CheckpointError, match="training.class was"):
        run(training=SAME, run_folder=tmp_path, resume=True)
    with pytest.raises(gfb.CheckpointError, match="NewerLoop.load_state_dict raised KeyError: 'scaler'"):
        looped(NewerLoop, run_folder=tmp_path, resume=True)
    looped(run_folder=tmp_path, resume=True)


def test_a_loop_may_use_data_of_its_own(tmp_path: Path) -> None:
    """A DataLoader that draws with the global generators, as most do."""

    class OwnData(PlainLoop):
        data = loader(96, seed=5)

        def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
            return sum(self.step(model, epoch, batch) for batch in self.data) / len(self.data)

    whole = comparable(looped(OwnData))
    assert comparable(resumed_until_done(tmp_path / "run", OwnData)) == whole


def test_without_epochs_a_loop_is_not_called() -> None:
    class Never:
        def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> float:
            raise AssertionError

        state_dict = load_state_dict = run_epoch

    search = gfb.SearchConfig(**{**vars(SEARCH), "pretrain_epochs": 0, "epochs_per_round": 0})
    assert run(training=Never(), search=search).history.epochs == ()


@pytest.mark.cuda
def test_on_cuda(tmp_path: Path) -> None:
    class Moving(PlainLoop):
        def step(self, model: nn.Module, epoch: TrainingEpoch, batch: Any) -> float:
            return super().step(model, epoch, tuple(tensor.cuda() for tensor in batch))

    def part(folder: Path, **changes: Any) -> Any:
        model = searchable().cuda()
        arguments = {"training": Moving(model), "metric": None, "name": "run", **changes}
        return run(model, run_folder=folder, resume=True, **arguments)

    whole = part(tmp_path / "whole")
    with pytest.raises(Stop):
        part(tmp_path / "parts", callbacks=[StopAfterEpochs()])
    state = CheckpointStore(tmp_path / "parts" / "checkpoints").load().optimizer["optimizer"]["state"]
    assert all(entry["momentum_buffer"].device.type == "cpu" for entry in state.values())
    result = part(tmp_path / "parts")
    assert next(result.model.parameters()).is_cuda
    assert result.metric == pytest.approx(whole.metric, rel=1e-3)
