"""Losses of candidates: super-batches and evaluators."""

from __future__ import annotations

from gfb_brevitas.evaluation.automatic import Automatic
from gfb_brevitas.evaluation.batches import Batch, Batches, BatchStream, LossFunction
from gfb_brevitas.evaluation.evaluator import (
    Chooser,
    Evaluator,
    Planned,
    ReferenceEvaluator,
    evaluator_names,
    make_evaluator,
    register_evaluator,
)
from gfb_brevitas.evaluation.prepared_evaluator import PreparedEvaluator
from gfb_brevitas.evaluation.super_batch import Minibatch, SuperBatch, SuperBatchKind

__all__ = [
    "Automatic",
    "Batch",
    "BatchStream",
    "Batches",
    "Chooser",
    "Evaluator",
    "LossFunction",
    "Minibatch",
    "Planned",
    "PreparedEvaluator",
    "ReferenceEvaluator",
    "SuperBatch",
    "SuperBatchKind",
    "evaluator_names",
    "make_evaluator",
    "register_evaluator",
]
