"""What MLflow is told of each record of a run: runs, parameters, metrics, texts and files as plain data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gfb_brevitas.search.history import (
    CostRows,
    EpochRecord,
    GenerationRecord,
    Record,
    RoundRecord,
    StepRecord,
)
from gfb_integrations.mlflow.spool import SEARCH, Event

_MOST_CHARACTERS = 500  # of a parameter's value, what every MLflow store takes
_MOST_PARAMETERS = 500


class RecordEvents:
    """Turns records into events.

    Metrics have a step that counts over the whole search, in the parent run and in that of the round alike,
    so that rounds lie behind one another in a chart.
    """

    def __init__(self) -> None:
        self._generations: dict[tuple[int, int, int], int] = {}
        self._steps: dict[tuple[int, int], int] = {}
        self._evaluations: dict[tuple[int, int], int] = {}
        self._rounds: set[int] = set()

    def of(self, record: Record) -> Iterator[Event]:
        """The events of a record, in order; the same ones when a record is reported again."""
        if isinstance(record, GenerationRecord):
            yield from self._of_generation(record)
        elif isinstance(record, StepRecord):
            yield from self._of_step(record)
        elif isinstance(record, EpochRecord):
            yield from self._of_epoch(record)
        elif isinstance(record, RoundRecord):
            yield from self._of_round(record)

    def _of_generation(self, record: GenerationRecord) -> Iterator[Event]:
        place = (record.round, record.step, record.generation)
        number = self._generations.setdefault(place, len(self._generations) + 1)
        before = self._evaluations.get(place[:2], 0) if record.generation > 1 else 0
        evaluations = record.evaluations - before
        self._evaluations[place[:2]] = record.evaluations
        values = {
            "best_value": record.best_value,
            "median_value": record.median_value,
            "mean_value": record.mean_value,
            "best_feasible_loss": record.best_feasible_loss,
            "feasible_share": record.feasible / evaluations if evaluations > 0 else math.nan,
            "step_size": record.step_size,
            "evaluations_per_second": evaluations / record.seconds if record.seconds > 0 else math.nan,
        }
        yield from self._metrics(record.round, f"generation/{_path(place)}", "generation", number, values)

    def _of_step(self, record: StepRecord) -> Iterator[Event]:
        place = (record.round, record.step)
        number = self._steps.setdefault(place, len(self._steps) + 1)
        chosen = record.chosen
        values = {
            "evaluations": float(record.evaluations),
            "distinct": float(record.distinct),
            "generations": float(record.generations),
            "feasible_share": record.feasible_share,
            "seconds": record.seconds,
            "super_batch_loss": math.nan if chosen is None else chosen.super_batch_loss,
            "reevaluated_loss": math.nan if chosen is None else chosen.reevaluated_loss,
        }
        name = f"step/{_path(place)}"
        yield from self._metrics(record.round, name, "step", number, values)
        file = f"allocations/round-{record.round:02d}-step-{record.step:02d}.json"
        yield text(round_key(record.round), file, dict(record.allocation), identity=f"{name}/allocation")

    def _of_epoch(self, record: EpochRecord) -> Iterator[Event]:
        values = {
            "train_loss": record.train_loss,
            "metric": record.metric,
            "learning_rate": record.learning_rate,
            "feasible": float(record.feasible),
            "seconds": record.seconds,
        }
        name = f"epoch/{record.epoch}"
        yield from self._metrics(record.round, name, "epoch", record.epoch, values)

    def _of_round(self, record: RoundRecord) -> Iterator[Event]:
        name = f"round/{record.round}"
        values = {"metric": record.metric, "best_metric": record.best_metric}
        yield from self._metrics(record.round, name, "round", record.round, values)
        yield from self._metrics(record.round, f"{name}/costs", "", record.round, cost_values(record.costs))
        key = round_key(record.round)
        yield text(key, "allocation.json", dict(record.allocation), identity=f"{name}/allocation")
        yield status(key, "FINISHED", identity=f"{name}/end")

    def _metrics(
        self, round: int, identity: str, group: str, step: int, values: Mapping[str, float]
    ) -> Iterator[Event]:
        yield from self._begun(round)
        named = {f"{group}/{name}".strip("/"): value for name, value in values.items()}
        for key in (SEARCH, round_key(round)):
            yield metrics(key, named, step=step, identity=f"{identity}@{key}")

    def _begun(self, round: int) -> Iterator[Event]:
        """The run of a round, before its first metric; rounds before it that have no record of their end."""
        if round in self._rounds:
            return
        for earlier in self._rounds:
            if earlier == 0:
                yield status(round_key(0), "FINISHED", identity="round/0/end")
        self._rounds.add(round)
        key = round_key(round)
        yield {"kind": "run", "run": key, "parent": SEARCH, "name": key, "id": f"run/{key}"}


def round_key(round: int) -> str:
    """Key and name of a round's run; round 0 is the pretraining."""
    return f"round-{round:02d}" if round else "pretraining"


def metrics(run: str, values: Mapping[str, float], *, step: int, identity: str | None = None) -> Event:
    """Metrics of a run; numbers that are not finite say that there is none, and are left out."""
    kept = {metric_name(name): float(value) for name, value in values.items() if math.isfinite(value)}
    return {"kind": "metrics", "run": run, "step": step, "values": kept, "id": identity}


def parameters(run: str, values: Mapping[str, str], *, identity: str) -> Event:
    """Parameters of a run."""
    kept = dict(list(values.items())[:_MOST_PARAMETERS])
    return {"kind": "params", "run": run, "values": kept, "id": identity}


def text(run: str, file: str, content: Any, *, identity: str) -> Event:
    """A JSON document as an artifact."""
    document = json.dumps(content, indent=1) + "\n"
    return {"kind": "text", "run": run, "file": file, "text": document, "id": identity}


def status(run: str, value: str, *, identity: str) -> Event:
    """What became of a run: RUNNING, FINISHED, FAILED or KILLED."""
    return {"kind": "status", "run": run, "status": value, "id": identity}


def cost_values(costs: CostRows) -> dict[str, float]:
    """Each cost and its share of the budget."""
    values = {f"cost/{row['name']}": float(row["value"]) for row in costs}
    return values | {f"budget_share/{row['name']}": float(row["use"]) for row in costs}


def metric_name(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def flat_parameters(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Settings as parameters named by their place, without what only lists the model's parts."""
    shown = {key: value for key, value in configuration.items() if key not in ("model", "allocation")}
    fixed = configuration.get("allocation") is not None
    return {
        metric_name(name): str(value)[:_MOST_CHARACTERS]
        for name, value in _leaves({**shown, "fixed_allocation": fixed}, "")
    }


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}")
    else:
        yield name, value


def _path(place: tuple[int, ...]) -> str:
    return "/".join(str(number) for number in place)
