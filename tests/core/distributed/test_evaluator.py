"""Losses of candidates that are evaluated by several processes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from gfb_brevitas.distributed import SharedEvaluator, current_world, in_all_processes, shared
from gfb_brevitas.distributed.evaluator import Deal
from gfb_brevitas.errors import ConfigurationError, DistributedError
from gfb_brevitas.evaluation import ReferenceEvaluator, SuperBatch
from gfb_brevitas.space import Bits
from tests.core.distributed.processes import in_processes
from tests.core.search.small_problem import loader, loss, searchable


def candidates(generation: int, count: int, quantizers: int) -> Bits:
    """Few different ones, so that some are equal and some come back."""
    return np.random.default_rng(generation).integers(2, 4, size=(count, quantizers))


@in_all_processes
def generations(count: int = 12) -> tuple[list[list[float]], int]:
    model = searchable()
    calls = []

    def counted(model: nn.Module, batch: Any) -> torch.Tensor:
        calls.append(1)
        return loss(model, batch)

    evaluator = shared(ReferenceEvaluator(model, counted))
    super_batch = SuperBatch(loader(), size=3, seed=0)
    losses = []
    for generation in range(4):
        bits = candidates(generation, count, len(model.profile))
        losses.append(evaluator.losses(bits, super_batch).tolist())
        super_batch.advance()
    return losses, len(calls)


def test_losses_are_those_of_one_process_and_nothing_is_computed_twice() -> None:
    expected, calls = generations()
    for size in (2, 3):
        answers = in_processes(generations, size=size)
        assert [losses for losses, _ in answers] == [expected] * size
        assert sum(own for _, own in answers) == calls
        assert max(own for _, own in answers) <= 1.2 * calls / size


def test_fewer_candidates_than_processes() -> None:
    expected, _ = generations(1)
    assert [losses for losses, _ in in_processes(generations, 1, size=3)] == [expected] * 3


def test_one_process_keeps_its_evaluator() -> None:
    evaluator = ReferenceEvaluator(searchable(), loss)
    assert shared(evaluator) is evaluator


class Odd:
    """An evaluator with a mind of its own in the second process."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def losses(self, bits: Bits, super_batch: SuperBatch) -> Any:
        if current_world().rank == 1:
            if self.kind == "error":
                raise ConfigurationError("This loss cannot be computed.")
            return np.full(len(bits), math.nan)
        return np.zeros(len(bits))


@in_all_processes
def odd_losses(kind: str) -> list[float]:
    bits = np.arange(8).reshape(4, 2)
    return SharedEvaluator(Odd(kind), current_world()).losses(bits, SuperBatch.of([1])).tolist()


def test_an_error_in_one_process_is_raised_in_all() -> None:
    first, second = in_processes(odd_losses, "error")
    assert type(first) is type(second) is ConfigurationError
    assert str(second) in str(first)


def test_losses_that_are_not_finite_reach_all_processes() -> None:
    first, second = in_processes(odd_losses, "nan")
    np.testing.assert_equal(first, [0, 0, math.nan, math.nan])
    np.testing.assert_equal(second, first)


@in_all_processes
def different_inputs(of: str) -> None:
    rank = current_world().rank
    bits = np.full((2, 2), 3 + (rank if of == "candidates" else 0))
    data = torch.zeros(3) + (rank if of == "data" else 0)
    SharedEvaluator(Odd("zeros"), current_world()).losses(bits, SuperBatch.of([data]))


def test_different_candidates_or_data_are_noticed() -> None:
    for of, words in (("candidates", "candidates"), ("data", "minibatches")):
        for error in in_processes(different_inputs, of):
            assert isinstance(error, DistributedError) and words in str(error)


def test_new_candidates_balance_those_that_come_back() -> None:
    deal = Deal(2)
    rows = np.arange(20).reshape(10, 2)
    assert deal.owners(rows[:4], (1, 2)).tolist() == [0, 0, 1, 1]
    # Two of process 1 come back with one minibatch each: as much work as one new candidate.
    assert deal.owners(rows[2:7], (2, 3)).tolist() == [1, 1, 0, 0, 1]
    # Nothing is known of any on other minibatches.
    assert deal.owners(rows[:6], (4,)).tolist() == [0, 0, 0, 1, 1, 1]
