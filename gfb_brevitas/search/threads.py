"""How many threads a run computes with: as few as are as fast, found out by measurement [ours].

A small network's operators are shorter than the handing out of their parts. On a machine that is busy with
something else the threads wait for each other, too, and burn processor time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gfb_brevitas.evaluation.batches import Batches, LossFunction, device_of, moved, one_pass
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.evaluation.randomness import RandomStream
from gfb_brevitas.notices import notify

_WORTH = 0.8  # of the time with half the threads; above, more threads are not worth it
_REPEATS = 3
_LONG_SECONDS = 0.1  # steps of this length are measured once
_MOST_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Torch computes with so many threads inside the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measured_threads(
    model: nn.Module, loss: LossFunction, batches: Batches, *, seed: int, processes: int = 1
) -> int:
    """The number of threads for a model's steps; nothing of the model changes.

    What the user has set counts: ``OMP_NUM_THREADS`` is kept, and there are never more than
    ``torch.get_num_threads()``. On an accelerator that number is kept, too.

    Args:
        model: The model.
        loss: ``loss(model, batch)``.
        batches: The first one is computed on.
        seed: Start of the random stream that everything is drawn under.
        processes: How many share the machine's cores.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    most = max(1, torch.get_num_threads() // processes)
    device = device_of(model)
    if most == 1 or (device is not None and device.type != "cpu"):
        return most
    batch = next(iter(moved(one, device) for one in one_pass(batches, seed, 1)))

    def step() -> None:
        with RandomStream(seed).active(), inference_only(model, "batch"), torch.enable_grad():
            value = loss(model, batch)
            parameters = [p for p in model.parameters() if p.requires_grad]
            if value.requires_grad:
                torch.autograd.grad(value, parameters, allow_unused=True)

    try:
        with computing_with(most):
            step()  # the first one sets everything up, and would count against one thread
        chosen, seconds = fewest_threads(lambda threads: _step_seconds(step, threads), most)
    except Exception as error:  # what training will say in its own words
        _logger.info("Threads are not measured: %s", error)
        return most
    told = ", ".join(f"{threads}: {1e3 * value:.3g} ms" for threads, value in seconds.items())
    notify(_logger, f"Computing with {chosen} of up to {most} threads (a step takes with {told}).")
    return chosen


def fewest_threads(seconds: Callable[[int], float], most: int) -> tuple[int, dict[int, float]]:
    """The number of threads beyond which more are not worth it, and what was measured.

    Args:
        seconds: Time of a step with so many threads.
        most: The largest number.
    """
    began = time.perf_counter()
    chosen, found = 1, {1: seconds(1)}
    while chosen < most and time.perf_counter() - began < _MOST_SECONDS:
        more = min(2 * chosen, most)
        found[more] = seconds(more)
        if found[more] > _WORTH * found[chosen]:
            break
        chosen = more
    return chosen, found


def _step_seconds(step: Callable[[], None], threads: int) -> float:
    """Median time of a step, after one that does not count unless it is long."""
    with computing_with(threads):
        times = [_seconds(step)]
        if times[0] < _LONG_SECONDS:
            times = sorted(_seconds(step) for _ in range(_REPEATS))
    return times[len(times) // 2]


def _seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began
