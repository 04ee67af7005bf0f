"""User code that a configuration names: training loops, callbacks, failures, prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import gfb_brevitas as gfb
from tests.core.configuration.conftest import NETWORK, SEARCH
from tests.core.test_cli import assert_one_line
from tests.core.test_cli import gfb as command

OWN_CODE = """
class Training:
    def __init__(self, model, epochs):
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        self.epochs = epochs

    def run_epoch(self, model, epoch):
        assert self.epochs == epoch.total
        for batch in epoch.batches:
            self.optimizer.zero_grad()
            epoch.loss(model, batch).backward()
            self.optimizer.step()
        return 0.25

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

def failing_training(model, epochs):
    raise RuntimeError("no such thing")

heard = []

class Listening:
    def on_epoch(self, record):
        heard.append(record.train_loss)

listening = Listening()
seven = 7
"""


def test_a_training_loop_and_callbacks_of_one_s_own(folder: Path) -> None:
    (folder / "configured_network.py").write_text(NETWORK + OWN_CODE)
    (folder / "search.yaml").write_text(
        SEARCH.replace(
            'training: {learning_rate: 0.05, optimizer: "configured_network:sgd"}',
            "training: configured_network:Training\n"
            "callbacks: [configured_network:Listening, configured_network:listening]",
        )
    )
    result = command("run", "search.yaml", "--json")
    assert result.exit_code == 0, result.output
    assert [epoch.train_loss for epoch in gfb.RecordedRun.load("run").history.epochs] == [0.25, 0.25]
    assert sys.modules["configured_network"].heard == [0.25] * 4
    assert command("resume", "run", "--json").exit_code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training=configured_network:Nothing", "has no 'Nothing'"),
        ("training=configured_network:seven", "called with the searchable model and the number of epochs"),
        ("training=configured_network:failing_training", "RuntimeError: no such thing"),
        ("training=configured_network:train", "failed"),
        ("callbacks=[configured_network:seven]", "at least one of the methods on_start"),
        ("callbacks=[configured_network:nowhere]", "has no 'nowhere'"),
        ("callbacks=[seven]", "names user code as module:function"),
        ("training=adam", "named as module:function"),
        ("training=3", "`training`"),
    ],
)
def test_errors_in_code_of_one_s_own_leave_no_run(folder: Path, change: str, message: str) -> None:
    (folder / "configured_network.py").write_text(NETWORK + OWN_CODE)
    result = command("run", "search.yaml", change)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "running.py" not in result.output
    assert not Path("run").exists()


ENDING = """
import sys

def prints():
    print("noise")
    return make()

def ends():
    sys.exit(0)

def ending_loss(model, batch):
    sys.exit(0)
"""


def test_what_the_user_s_code_prints_is_not_in_the_json(folder: Path) -> None:
    (folder / "configured_network.py").write_text(NETWORK + ENDING + "print('imported')\n")
    for arguments in (
        ("run", "search.yaml", "model=configured_network:prints", "--json"),
        ("inspect", "configured_network:prints", "--json"),
        ("apply", "run/allocation.json", "--model", "configured_network:prints", "--json"),
    ):
        sys.modules.pop("configured_network", None)
        result = command(*arguments)
        assert result.exit_code == 0, result.output
        json.loads(result.stdout)
        assert "noise" in result.stderr


@pytest.mark.parametrize("setting", ["model=configured_network:ends", "loss=configured_network:ending_loss"])
def test_user_s_code_that_ends_the_program_is_a_failure(folder: Path, setting: str) -> None:
    (folder / "configured_network.py").write_text(NETWORK + ENDING)
    result = command("run", "search.yaml", setting)
    assert result.exit_code == 1
    assert "sys.exit" in result.output


def test_data_that_is_none(folder: Path) -> None:
    (folder / "configured_network.py").write_text(NETWORK + "\ndef forgot():\n    pass\n")
    result = command("run", "search.yaml", "train_batches=configured_network:forgot")
    assert_one_line(result, "'configured_network:forgot' returns None")


RAISING = """
calls = 0

def third_time():
    global calls
    calls += 1
    if calls > 8:
        raise RuntimeError("the camera is gone")

def sometimes(model, batch):
    third_time()
    return small_problem.loss(model, batch)

def bad_metric(model):
    return {}["accuracy"]

class Data:
    def __iter__(self):
        for batch in small_problem.loader():
            third_time()
            yield batch

def data():
    return Data()

class Asking:
    def on_epoch(self, record):
        raise OSError("nobody answers")

class Loop:
    def __init__(self, model, epochs):
        pass

    def run_epoch(self, model, epoch):
        next(iter(epoch.batches))
        raise ValueError("no epoch")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


@pytest.mark.parametrize(
    ("setting", "value", "raised", "function"),
    [
        ("loss", "sometimes", "RuntimeError: the camera is gone", "in third_time"),
        ("metric", "bad_metric", "KeyError: 'accuracy'", "in bad_metric"),
        ("train_batches", "data", "RuntimeError: the camera is gone", "in __iter__"),
        ("calibration_batches", "data", "RuntimeError: the camera is gone", "in __iter__"),
        ("callbacks", "Asking", "OSError: nobody answers", "in on_epoch"),
        ("training", "Loop", "ValueError: no epoch", "in run_epoch"),
    ],
)
def test_an_error_of_the_user_s_code_in_mid_run_is_short(
    folder: Path, setting: str, value: str, raised: str, function: str
) -> None:
    code = NETWORK + RAISING
    if setting == "calibration_batches":
        code = code.replace("calls > 8", "calls > 1")
    (folder / "configured_network.py").write_text(code)
    reference = f"configured_network:{value}"
    given = f"[{reference}]" if setting == "callbacks" else reference
    result = command("run", "search.yaml", f"{setting}={given}")
    assert result.exit_code == 1
    assert f"in `{setting}` ('{reference}'), {setting} on the command line" in result.stderr
    assert raised in result.stderr and function in result.stderr
    assert "What was done is kept in 'run'" in result.stderr and "goes on from there" in result.stderr
    assert "gfb_brevitas/" not in result.stderr and result.stderr.count("\n") < 18
    status = gfb.RecordedRun.load("run").status
    assert (status.state, status.error) == ("failed", raised)


def test_an_error_of_the_package_is_told_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("gfb_brevitas.search.run.Run._step", broken)
    result = command("run", "search.yaml")
    assert isinstance(result.exception, AssertionError)
