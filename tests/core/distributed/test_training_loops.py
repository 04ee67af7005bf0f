"""Training loops of the user's in several processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gfb_brevitas.errors import ConfigurationError, DistributedError
from gfb_brevitas.search import EpochOutcome, TrainingEpoch
from tests.core.distributed.processes import in_processes
from tests.core.distributed.test_runs import StopAtEpoch, plain, require_same_in_all
from tests.core.search.plain_loop import PlainLoop, looped
from tests.core.search.small_problem import run, searchable


class SharingLoop(PlainLoop):
    """Trains on every second sample, and shares gradients."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.shared = DistributedDataParallel(model)

    def step(self, model: nn.Module, epoch: TrainingEpoch, batch: Any) -> float:
        rank, size = dist.get_rank(), dist.get_world_size()
        return super().step(self.shared, epoch, (batch[0][rank::size], batch[1][rank::size]))


class PartingLoop(PlainLoop):
    """Trains on every second sample, and shares nothing."""

    def step(self, model: nn.Module, epoch: TrainingEpoch, batch: Any) -> float:
        rank, size = dist.get_rank(), dist.get_world_size()
        return super().step(model, epoch, (batch[0][rank::size], batch[1][rank::size]))


class FailingLoop(PlainLoop):
    """Returns nothing in one of the processes."""

    def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
        outcome = super().run_epoch(model, epoch)
        return outcome if dist.get_rank() == 0 else None


class OwnLossLoop(PlainLoop):
    """Returns another number in every process; that of the first one counts."""

    def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> EpochOutcome:
        outcome: EpochOutcome = super().run_epoch(model, epoch)
        return replace(outcome, train_loss=outcome.train_loss + dist.get_rank())


def run_with(loop: Any, **arguments: Any) -> dict[str, Any]:
    return plain(looped(loop, **arguments))


def run_in_a_group(loop: Any) -> dict[str, Any]:
    """With the process group that the script has made itself, as Accelerate does."""
    dist.init_process_group("gloo")
    try:
        model = searchable()
        return plain(run(model, training=loop(model), name="run"))
    finally:
        dist.destroy_process_group()


def test_a_loop_that_does_the_same_in_all_processes_gives_the_run_of_one() -> None:
    answers = in_processes(run_with, OwnLossLoop)
    require_same_in_all(answers)
    expected = run_with(PlainLoop)
    assert answers[0]["records"] == expected["records"]
    for name, value in expected["weights"].items():
        assert (answers[0]["weights"][name] == value).all(), name


def test_a_run_is_resumed_by_another_number_of_processes(tmp_path: Path) -> None:
    stopped = in_processes(run_with, PlainLoop, run_folder=tmp_path / "run", callbacks=[StopAtEpoch()])
    assert not any(isinstance(answer, dict) for answer in stopped)
    answers = in_processes(run_with, PlainLoop, run_folder=tmp_path / "run", resume=True)
    require_same_in_all(answers)
    assert answers[0]["records"] == run_with(PlainLoop)["records"]


def test_a_loop_that_shares_gradients() -> None:
    require_same_in_all(in_processes(run_in_a_group, SharingLoop))


def test_a_loop_that_lets_the_weights_part() -> None:
    for answer in in_processes(run_in_a_group, PartingLoop):
        assert isinstance(answer, DistributedError)
        assert "weights after epoch 1" in str(answer) and "must share gradients" in str(answer)


def test_an_error_in_one_process_is_raised_in_all() -> None:
    for answer in in_processes(run_with, FailingLoop):
        assert isinstance(answer, ConfigurationError) and "run_epoch must return" in str(answer)
