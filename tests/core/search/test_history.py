from __future__ import annotations

import json
import math

import pytest

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search import (
    CalibrationRecord,
    Candidate,
    EpochRecord,
    GenerationRecord,
    History,
    Record,
    RoundRecord,
    StepRecord,
)

ROWS = ({"name": "weight_size", "value": 8.0, "limit": 9.0, "use": 8 / 9, "unit": "bits", "feasible": True},)
CALIBRATION = CalibrationRecord(seconds=0.5, batches=3, allocation={"a": 4}, costs=ROWS)
GENERATION = GenerationRecord(
    seconds=0.1,
    round=1,
    step=1,
    generation=2,
    evaluations=12,
    best_value=0.1 + 0.2,
    mean_value=0.5,
    median_value=0.45,
    best_feasible_loss=0.4,
    feasible=3,
    non_finite=1,
    step_size=0.3,
)
STEP = StepRecord(
    seconds=1.0,
    round=1,
    step=1,
    study="run/round-01/step-01",
    evaluations=12,
    distinct=9,
    generations=2,
    feasible_share=0.25,
    stopped="evaluations",
    allocation={"a": 3},
    costs=ROWS,
    candidates=(
        Candidate(bits=(3,), source="sampled", super_batch_loss=0.4, reevaluated_loss=0.5),
        Candidate(bits=(2,), source="mean", super_batch_loss=0.6, reevaluated_loss=0.7),
    ),
)
EPOCH = EpochRecord(
    seconds=2.0,
    epoch=1,
    round=0,
    train_loss=1.5,
    learning_rate=0.1,
    metric=0.7,
    feasible=False,
    best=False,
)
ROUND = RoundRecord(seconds=0.0, round=1, metric=0.7, best_metric=0.8, allocation={"a": 3}, costs=ROWS)
ALL = (CALIBRATION, GENERATION, STEP, EPOCH, ROUND)


@pytest.mark.parametrize("record", ALL)
def test_records_survive_json(record: Record) -> None:
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert Record.from_dict(json.loads(text)) == record


def test_what_is_not_finite_becomes_null_and_nan() -> None:
    record = RoundRecord(round=1, metric=math.nan, best_metric=math.inf, allocation={})
    document = record.to_dict()
    assert document["metric"] is None and document["best_metric"] is None
    read = Record.from_dict(document)
    assert isinstance(read, RoundRecord) and math.isnan(read.metric)


@pytest.mark.parametrize("document", [{}, {"kind": "coffee"}, {"kind": "round", "cups": 1}])
def test_other_data_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        Record.from_dict(document)


def test_history_by_kind() -> None:
    history = History(ALL)
    assert (history.generations, history.steps) == ((GENERATION,), (STEP,))
    assert (history.epochs, history.rounds) == ((EPOCH,), (ROUND,))
    assert history.seconds == 3.5  # generations are part of their steps
    assert len(history) == 5 and history[2] is STEP


def test_the_chosen_candidate_is_the_first() -> None:
    assert STEP.chosen is STEP.candidates[0]
