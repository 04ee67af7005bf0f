"""Losses of candidates: super-batches and evaluators."""

from __future__ import annotations

from gfb_brevitas.evaluation.batches import Batch, Batches, BatchStream, LossFunction
from gfb_brevitas.evaluation.evaluator import (
    Evaluator,
    ReferenceEvaluator,
    evaluator_names,
    make_evaluator,
    register_evaluator,
)
from gfb_brevitas.evaluation.prepared_evaluator import PreparedEvaluator
from gfb_brevitas.evaluation.super_batch import Minibatch, SuperBatch, SuperBatchKind

__all__ = [
    "Batch",
    "BatchStream",
    "Batches",
    "Evaluator",
    "LossFunction",
    "Minibatch",
    "PreparedEvaluator",
    "ReferenceEvaluator",
    "SuperBatch",
    "SuperBatchKind",
    "evaluator_names",
    "make_evaluator",
    "register_evaluator",
]
