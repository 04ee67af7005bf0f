"""The evaluator ``"auto"``: a prepared program where preparing it pays, else the model itself.

Whether it pays is decided by counts, not by a clock: the evaluations that are planned, and the operations
that one of them takes, weighed with costs that were measured once. So equal runs choose alike on any machine,
busy or not, in every process, and when a run is resumed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gfb_brevitas.evaluation.batches import LossFunction, device_of, moved
from gfb_brevitas.evaluation.evaluator import Evaluator, Planned, ReferenceEvaluator, register_evaluator
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.evaluation.prepared_evaluator import PreparedEvaluator, integers_run_on
from gfb_brevitas.evaluation.randomness import RandomStream
from gfb_brevitas.evaluation.work import Work, work_of

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

# Seconds on one core, from networks of tests/benchmarks/bench_evaluation.py; only their ratios matter.
OPERATION_S, NUMBER_S, MULTIPLICATION_S = 4e-6, 4.5e-10, 2e-11
"""What the model takes for each operation, each number that it writes and each multiply-accumulate."""
SAVED_OF_OPERATIONS, SAVED_OF_NUMBERS = 0.3, 0.5
"""Shares of these that a program saves at least; products of floating-point values take it as long."""
LEAST_SAVED = 0.15
"""A program that saves a smaller share than this of the model's time is not worth its trouble."""
PREPARING_OPERATION_S, PREPARING_RUNS = 1e-3, 45
"""What making and checking a program takes for each operation, and in runs of the model."""
STEP_RUNS = 14
"""Runs of the model that take as long as what is done anew when weights have changed."""


class Automatic:
    """Makes the evaluator that is fastest, for all that is planned where that is known."""

    def __call__(
        self, model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics
    ) -> Evaluator:
        """A prepared evaluator, with eight-bit integer arithmetic where the machine has it."""
        return PreparedEvaluator(model, loss, batchnorm, integers=integers_run_on(model))

    def planned(
        self, model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics, plan: Planned
    ) -> Evaluator:
        """That, or the reference where preparing takes longer than it saves."""
        work = _work_of_a_loss(model, loss, batchnorm, plan)
        minibatches = len(set(plan.super_batch.version))
        runs, enough = plan.candidates * minibatches, runs_that_pay(work, plan.steps)
        if runs >= enough:
            return self(model, loss, batchnorm)
        return ReferenceEvaluator(model, loss, batchnorm, reason=_why_not(runs, enough))


def runs_that_pay(work: Work, steps: int) -> float:
    """How many runs of the model a step must have for a program to save more than it costs; may be infinite.

    Args:
        work: Of one run.
        steps: Gradient-free steps that share one program.
    """
    operations_s, numbers_s = work.operations * OPERATION_S, work.numbers * NUMBER_S
    run_s = operations_s + numbers_s + work.multiplications * MULTIPLICATION_S
    saved_s = SAVED_OF_OPERATIONS * operations_s + SAVED_OF_NUMBERS * numbers_s
    if saved_s <= LEAST_SAVED * run_s:
        return math.inf
    preparing_s = work.operations * PREPARING_OPERATION_S + PREPARING_RUNS * run_s
    return (preparing_s / steps + STEP_RUNS * run_s) / saved_s


def _work_of_a_loss(
    model: SearchableModel, loss: LossFunction, batchnorm: BatchNormStatistics, plan: Planned
) -> Work:
    minibatch = plan.super_batch.minibatches[0]
    batch = moved(minibatch.data, device_of(model))
    before = model.space.bits(model.allocation)
    try:
        model.set_bits(info.max_bits for info in model.profile)
        with inference_only(model, batchnorm), RandomStream(minibatch.seed).active():
            return work_of(lambda: loss(model, batch))
    finally:
        model.set_bits(before)


def _why_not(runs: int, enough: float) -> str:
    if math.isinf(enough):
        return (
            "its time goes into products of floating-point values, which a prepared program takes as long for"
        )
    return f"preparing it pays from about {_rounded(enough):,.0f} runs a step on, and {runs:,} are planned"


def _rounded(number: float) -> float:
    return round(number, 2 - len(str(int(number))))


register_evaluator("auto", Automatic())
