"""What MLflow was told, read back with its own client, and what it should have been told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from gfb_brevitas.search.history import History

# MLflow's tables, where a store is read without a server.
SQLALCHEMY = "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
Points = dict[str, list[tuple[int, float]]]


def runs_by_name(client: MlflowClient, parent_id: str) -> dict[str, Run]:
    """The runs nested under one, by name, and that one as ``"search"``."""
    parent = client.get_run(parent_id)
    query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    nested = client.search_runs([parent.info.experiment_id], query)
    names = [run.info.run_name for run in nested]
    assert len(set(names)) == len(names), names
    return {"search": parent, **{str(run.info.run_name): run for run in nested}}


def points(client: MlflowClient, run: Run) -> Points:
    """All metrics of a run but times and the machine's load: steps and values in order."""
    names = [name for name in run.data.metrics if "second" not in name and not name.startswith("system/")]
    return {
        name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in names
    }


def all_points(client: MlflowClient, parent_id: str) -> dict[str, Points]:
    """The metrics of the search's run and of those of its rounds."""
    return {name: points(client, run) for name, run in runs_by_name(client, parent_id).items()}


def expected(history: History) -> Points:
    """Some metrics of the search's run that follow from a history."""
    generations = list(enumerate(history.generations, start=1))
    return {
        "generation/best_value": [(i, g.best_value) for i, g in generations],
        "generation/median_value": _finite([(i, g.median_value) for i, g in generations]),
        "generation/best_feasible_loss": _finite([(i, g.best_feasible_loss) for i, g in generations]),
        "generation/step_size": [(i, g.step_size) for i, g in generations],
        "step/evaluations": [(i, float(s.evaluations)) for i, s in enumerate(history.steps, start=1)],
        "epoch/train_loss": [(e.epoch, e.train_loss) for e in history.epochs],
        "epoch/metric": [(e.epoch, e.metric) for e in history.epochs],
        "epoch/learning_rate": [(e.epoch, e.learning_rate) for e in history.epochs],
        "round/metric": [(r.round, r.metric) for r in history.rounds],
        "cost/weight_size": [(r.round, float(r.costs[0]["value"])) for r in history.rounds],
        "budget_share/weight_size": [(r.round, float(r.costs[0]["use"])) for r in history.rounds],
    }


def _finite(values: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in values if math.isfinite(value)]


def shows(found: Points, history: History) -> bool:
    """Whether each of the expected metrics is there, once and in order."""
    return all(found.get(name, []) == values for name, values in expected(history).items())


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value
