"""What processes say to each other, and how they end together."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
import torch

from gfb_brevitas.distributed import current_world, in_all_processes, is_first_process, joined_world
from gfb_brevitas.errors import CheckpointError, DistributedError
from tests.core.distributed.processes import in_processes


def everything_said() -> tuple[Any, ...]:
    said: list[Any] = []
    with joined_world() as world:
        assert current_world() is world
        said += [world.size, world.is_first, is_first_process()]
        said.append(world.gather("names", f"process {world.rank}".encode()))
        small = torch.tensor([0.1, 0.2], dtype=torch.float64) * (world.rank + 1)
        said.append(world.sum("small", small).tolist())
        said.append(world.sum("large", torch.arange(5000.0) + world.rank).sum().item())
        said.append(world.broadcast("text", b"of the first" if world.is_first else b"").decode())
        said.append(world.broadcast("nothing", b""))
        said.append(world.first_value("number", lambda: 0.1 + world.rank))
        tensors = [torch.full((2, 3), world.rank), torch.tensor(world.rank == 0), torch.empty(0)]
        world.broadcast_tensors("tensors", tensors)
        said.append([tensor.tolist() for tensor in tensors])
        with joined_world() as inner:  # as in a callback, which only the first process calls
            said.append(inner.size)
    assert current_world().size == 1
    return tuple(said)


def test_all_processes_get_the_same() -> None:
    first, second = in_processes(everything_said)
    assert first[:3] == (2, True, True) and second[:3] == (2, False, False)
    assert first[3:] == second[3:]
    names, small, large, text, nothing, number, tensors, inner = first[3:]
    assert names == [b"process 0", b"process 1"]
    assert small == [0.1 + 0.2, 0.2 + 0.4] and large == 5000 * 4999 + 5000
    assert (text, nothing, number, inner) == ("of the first", b"", 0.1, 1)
    assert tensors == [[[0, 0, 0], [0, 0, 0]], True, []]


def test_one_process_says_everything_to_itself() -> None:
    assert everything_said()[:3] == (1, True, True)


def twice() -> list[float]:
    sums = []
    for _ in range(2):
        with joined_world() as world:
            sums.append(float(world.sum("ones", torch.ones(1))))
    return sums


def test_a_program_may_have_several_runs() -> None:
    assert in_processes(twice) == [[2.0, 2.0]] * 2


def in_a_group_of_the_user() -> tuple[float, bool]:
    torch.distributed.init_process_group("gloo")
    with joined_world() as world:
        total = float(world.sum("ones", torch.ones(1)))
    still_there = torch.distributed.is_initialized()
    torch.distributed.destroy_process_group()
    return total, still_there


def test_a_group_that_the_program_made_itself_is_used_and_left_alone() -> None:
    assert in_processes(in_a_group_of_the_user, size=3) == [(3.0, True)] * 3


@in_all_processes
def failing(error: BaseException, where: int) -> None:
    world = current_world()
    for number in range(3):
        world.meet(f"round {number}")
        if number == 1 and world.rank == where:
            raise error
    time.sleep(0.1)


def test_an_error_in_one_process_is_raised_in_all() -> None:
    first, second = in_processes(failing, CheckpointError("The disk is full."), 0)
    assert type(first) is type(second) is CheckpointError
    assert str(first) == "The disk is full." and str(second) == "The disk is full. (In process 0 of 2.)"


def test_any_other_exception_names_the_process() -> None:
    first, second = in_processes(failing, ZeroDivisionError("x" * 10_000), 1)
    assert type(first) is DistributedError and "process 1 of 2 with ZeroDivisionError: xxx" in str(first)
    assert type(second) is ZeroDivisionError


def test_ctrl_c_in_one_process_stops_all() -> None:
    first, second = in_processes(failing, KeyboardInterrupt(), 1)
    assert type(first) is DistributedError and "interrupted in process 1 of 2" in str(first)
    assert type(second) is KeyboardInterrupt


@in_all_processes
def failing_at_the_end(where: int) -> str:
    if current_world().rank == where:
        raise ValueError("at the end")
    return "done"


def test_no_process_succeeds_when_one_fails_at_its_end() -> None:
    first, second = in_processes(failing_at_the_end, 1)
    assert type(first) is DistributedError and type(second) is ValueError


@in_all_processes
def killed(where: int) -> None:
    if current_world().rank == where:
        os.kill(os.getpid(), signal.SIGKILL)
    current_world().sum("ones", torch.ones(10_000))


def test_a_process_that_is_killed_does_not_leave_the_others_waiting() -> None:
    first, second = in_processes(killed, 1)
    assert type(first) is DistributedError and "lost each other" in str(first)
    assert type(second) is ProcessLookupError


@in_all_processes
def at_different_places() -> None:
    current_world().meet(f"place {current_world().rank}")


@in_all_processes
def with_different_data() -> None:
    world = current_world()
    world.require_equal("data", bytes([world.rank]), "Use the same.")


@pytest.mark.parametrize(
    "function, message",
    [
        (at_different_places, "process 0: place 0; process 1: place 1"),
        (with_different_data, "all.*: data.*Use"),
    ],
)
def test_processes_that_do_not_do_the_same_are_told(function: Any, message: str) -> None:
    for error in in_processes(function):
        with pytest.raises(DistributedError, match=message):
            raise error
