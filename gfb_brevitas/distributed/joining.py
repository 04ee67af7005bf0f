"""Joining the processes that torchrun, or the user's own program, has started."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from itertools import count
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from gfb_brevitas.distributed.process_group import ProcessGroup
from gfb_brevitas.distributed.world import World, current_world, working_in

P = ParamSpec("P")
T = TypeVar("T")
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets, and others that start processes for torch.distributed."""

_package_logger = logging.getLogger("gfb_brevitas")
_runs = count()


def in_all_processes(function: Callable[P, T]) -> Callable[P, T]:
    """Have the processes work together while a function runs, which all of them call.

    They leave it together: an error in one process is raised in all.
    """

    @wraps(function)
    def together(*args: P.args, **kwargs: P.kwargs) -> T:
        with joined_world():
            return function(*args, **kwargs)

    return together


@contextmanager
def joined_world() -> Iterator[World]:
    """The processes of the program, which work together inside the block.

    They are those of torch.distributed's default process group. Where there is none but torchrun's
    environment variables are, the group is made for the block. Inside the block of another run the
    process is on its own: a callback, say, is called in the first process only.

    Raises:
        DistributedError: If the processes cannot be joined.
        GfbError: If the block ended without an error here but not in another process.
    """
    with ExitStack() as stack:
        if current_world().size > 1 or not _are_several():
            yield stack.enter_context(working_in(World()))
            return
        if not dist.is_initialized():
            stack.enter_context(_default_group())
        group = ProcessGroup()
        stack.callback(group.close)
        if not group.is_first:
            stack.enter_context(_quiet())
        try:
            yield stack.enter_context(working_in(group))
        except BaseException as error:
            group.leave(error)
            raise
        group.leave()


def is_first_process() -> bool:
    """Whether this process is the one that writes files and prints; true where there is only one.

    Example:
        >>> if is_first_process():
        ...     print("once")
        once
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not _is_launched() or os.environ["RANK"] == "0"


def _are_several() -> bool:
    if not dist.is_available():
        return False
    if dist.is_initialized():
        return dist.get_world_size() > 1
    return _is_launched() and int(os.environ["WORLD_SIZE"]) > 1


def _is_launched() -> bool:
    return all(name in os.environ for name in ENVIRONMENT)


@cache
def _store() -> tuple[Any, int, int]:
    """Where processes leave their addresses; kept, since a second one could not use the same port."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    return store, rank, size


@contextmanager
def _default_group() -> Iterator[None]:
    store, rank, size = _store()
    # A prefix of its own for every run, or the second one would find the addresses of the first.
    own = dist.PrefixStore(f"gfb_brevitas/{next(_runs)}", store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=own, rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages that the first process logs as well."""
    level = _package_logger.level
    _package_logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        _package_logger.setLevel(level)
