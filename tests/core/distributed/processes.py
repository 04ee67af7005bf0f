"""Running a function in several processes that are connected as torchrun would connect them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT_S = 120
# A server that has imported everything once, and has no threads: its forks start at once.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.core.search.small_problem", "gfb_brevitas.distributed"])


def in_processes(function: Callable[..., Any], *arguments: Any, size: int = 2, **more: Any) -> list[Any]:
    """What a function returns in every process, or the exception that it raises there.

    Args:
        function: A function at the top of a module.
        arguments: Its arguments.
        size: Number of processes.
        more: Its named arguments.
    """
    port = free_port()
    pipes = [_context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        _context.Process(target=_work, args=(rank, size, port, sender, function, arguments, more))
        for rank, (_, sender) in enumerate(pipes)
    ]
    try:
        for process in processes:
            process.start()
        for _, sender in pipes:
            sender.close()
        return [_received(receiver) for receiver, _ in pipes]
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _received(receiver: Connection) -> Any:
    if not receiver.poll(TIMEOUT_S):
        return TimeoutError(f"no answer within {TIMEOUT_S} seconds")
    try:
        return receiver.recv()
    except EOFError:
        return ProcessLookupError("the process ended without an answer")


def _work(
    rank: int,
    size: int,
    port: int,
    sender: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    more: dict[str, Any],
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        answer = function(*arguments, **more)
    except BaseException as error:
        answer = error
    sender.send(answer)
