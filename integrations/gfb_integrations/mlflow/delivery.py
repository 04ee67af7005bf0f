"""Delivers events to MLflow: in order, and once whatever fails in between.

A request whose outcome is not known (a server that died, a courier that was killed) is looked up before it is
repeated: runs by a tag of their own, metrics in their history, models by a tag. Parameters, tags, states and
files are the same when they are written twice.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from gfb_integrations.mlflow.spool import (
    EVENTS,
    EXPERIMENT,
    OWN_EVENTS,
    SEARCH,
    Delivered,
    Event,
    Line,
    read_lines,
    without_password,
)

FILES = (EVENTS, OWN_EVENTS)
KEY_TAG = "gfb_brevitas.key"
MOST_EVENTS = 500
# MLflow's pages then show what is for training models, and not what is for language models.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_REQUEST = 100  # parameters or tags
_REQUEST_METRICS = 900
_IN_BATCHES = ("metrics", "params", "tags")
_REFUSALS = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
    "BAD_REQUEST",
}

_logger = logging.getLogger(__name__)


class Delivery:
    """Delivers the spool in a folder.

    Args:
        folder: The folder.
        uri: The server or store.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self._uri = folder, uri
        self._client = MlflowClient(uri)
        self.state = Delivered.load(folder)
        self._settled = False
        self._in_doubt = True
        # Where the state got lost, everything that is there may have been delivered.
        lost = not self.state.offsets
        self._doubtful = {name: _size(folder / name) if lost else 0 for name in FILES}

    @property
    def later(self) -> int:
        """How many files and models are left that could not be delivered."""
        return len(self.state.later)

    def deliver_some(self) -> int:
        """Deliver the oldest events that were not yet; how many.

        Raises:
            Exception: Of whichever kind MLflow raises where the server is away; to be tried again.
        """
        try:
            self._settle()
            name, lines = self._next_lines()
            if lines:
                self._deliver(name, lines)
            return len(lines)
        except Exception:
            self._in_doubt, self._settled = True, False
            raise

    def _next_lines(self) -> tuple[str, list[Line]]:
        """The oldest lines that were not delivered, all of one file."""
        events, own = (
            read_lines(self.folder / name, self.state.offsets.get(name, 0), MOST_EVENTS) for name in FILES
        )
        if not own or not self.state.runs:
            return FILES[0], events
        earlier = list(takewhile(lambda line: _time(line) <= _time(own[0]), events))
        if earlier:
            return FILES[0], earlier
        return FILES[1], [line for line in own if not events or _time(line) < _time(events[0])]

    def deliver_later_ones(self) -> None:
        """Try again what could not be delivered; each once, up to the first that fails again.

        Raises:
            Exception: If one still cannot.
        """
        self._settle()
        for event in list(self.state.later):
            self.state.later.remove(event)
            try:
                self._do(event)
            except Exception as error:
                if not _is_refusal(error):
                    self.state.later.append(event)  # behind the others, which may fare better
                    raise
                _logger.error("MLflow refuses %s: %s", event.get("id"), first_line(error))
            self.state.save(self.folder)

    def _settle(self) -> None:
        """Begin anew where the runs are not: in another store than before, or one that was emptied."""
        if self._settled:
            return
        shown = without_password(self._uri)
        if self.state.runs and not self._exists(next(iter(self.state.runs.values()))):
            _logger.warning("The runs are not in %s; they are written there anew.", shown)
            self.state = Delivered(uri=shown, experiment=None, runs={}, offsets={}, later=[])
        self.state.uri = shown
        self._settled = True

    def _exists(self, run_id: str) -> bool:
        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if _is_refusal(error):
                return False
            raise
        return True

    def _deliver(self, name: str, lines: list[Line]) -> None:
        _sync(self.folder / name)  # what is delivered must be on disk: it tells a repeated event apart
        for stretch in _stretches(lines):
            events = [line.event for line in stretch if line.event is not None]
            if len(events) < len(stretch):
                _logger.warning("%s: %d damaged lines are left out.", name, len(stretch) - len(events))
            self._carry_out(events)
            self.state.offsets[name] = stretch[-1].end
            self.state.save(self.folder)
            self._in_doubt = stretch[-1].end < self._doubtful[name]

    def _carry_out(self, events: list[Event]) -> None:
        if len(events) == 1:
            self._carry_out_one(events[0])
            return
        by_run: dict[str, list[Event]] = {}
        for event in events:
            by_run.setdefault(event["run"], []).append(event)
        for group in by_run.values():
            try:
                self._log(group)
            except Exception as error:
                if not _is_refusal(error):
                    raise
                for event in group:  # to find the one that is refused
                    self._carry_out_one(event)

    def _carry_out_one(self, event: Event) -> None:
        try:
            self._do(event)
        except Exception as error:
            if _is_refusal(error):
                self._require_runs(event, error)
                _logger.error("MLflow refuses %s: %s", event.get("id") or event["kind"], first_line(error))
            elif event["kind"] in ("file", "text", "model"):
                # They keep nothing waiting: where artifacts go may be away while metrics are taken.
                _logger.warning("%s is tried again later: %s", event.get("id"), first_line(error))
                self.state.later.append(event)
            else:
                raise

    def _do(self, event: Event) -> None:
        kind = event["kind"]
        if kind == "run":
            self._create(event)
        elif kind in _IN_BATCHES:
            self._log([event])
        elif kind == "status":
            self._set_status(event)
        elif kind == "text":
            self._client.log_text(self._run(event), event["text"], event["file"])
        elif kind == "file":
            self._log_file(event)
        elif kind == "model":
            from gfb_integrations.mlflow.models import log_onnx

            log_onnx(self._client, self._uri, self.state.experiment, self._run(event), self.folder, event)

    def _require_runs(self, event: Event, error: Exception) -> None:
        """Not a refusal if somebody deleted what the event belongs to.

        What was restored then gets it. If everything has gone, the next attempt begins anew.
        """
        first = next(iter(self.state.runs.values()), None)
        missing = getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
        if missing and first is not None and not self._exists(first):
            raise RuntimeError("the runs are not there any more") from error
        run_id = self.state.runs.get(event["run"])
        if run_id is not None and self._exists(run_id):
            info = self._client.get_run(run_id).info
            if info.lifecycle_stage == "deleted":
                raise RuntimeError(f"the run {info.run_name!r} was deleted; restore it") from error
        elif run_id is None and self.state.experiment is not None:
            experiment = self._client.get_experiment(self.state.experiment)
            if experiment.lifecycle_stage == "deleted":
                raise RuntimeError(f"the experiment {experiment.name!r} was deleted; restore it") from error

    def _run(self, event: Event) -> str:
        """Id of an event's run; where the line that was to make it is damaged, it is made without."""
        key = event["run"]
        if key not in self.state.runs:
            _logger.warning(
                "What the MLflow run %r begins with is damaged or was refused; it begins without.", key
            )
            of_folder = uuid5(NAMESPACE_URL, self.folder.resolve().as_uri()).hex
            parent = None if key == SEARCH else SEARCH
            if parent is not None:
                self._run({**event, "run": SEARCH})
            about = {"run": key, "parent": parent, "unique": of_folder, "experiment": EXPERIMENT}
            self._create({**about, "name": None if parent is None else key, "time": event["time"]})
        return self.state.runs[key]

    def _create(self, event: Event) -> None:
        if event["run"] in self.state.runs:
            return
        parent = event.get("parent")
        parent_id = self.state.runs[parent] if parent else event.get("parent_run_id")
        experiment = self._experiment(event, parent_id)
        tags = {**event.get("tags", {}), KEY_TAG: f"{event['unique']}/{event['run']}"}
        if parent_id is not None and (parent or self._exists(parent_id)):
            tags["mlflow.parentRunId"] = parent_id
        elif parent_id is not None:
            _logger.warning("There is no run %r to nest the search's run under.", parent_id)
        found = self._found(experiment, tags[KEY_TAG]) if self._in_doubt else None
        if found is None:
            run = self._client.create_run(
                experiment, start_time=event["time"], tags=tags, run_name=event.get("name")
            )
            found = run.info.run_id
        self.state.runs[event["run"]] = found

    def _found(self, experiment: str, key: str) -> str | None:
        query = f"tags.`{KEY_TAG}` = '{key}'"
        runs = self._client.search_runs([experiment], query, run_view_type=ViewType.ALL, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _experiment(self, event: Event, parent_id: str | None) -> str:
        if self.state.experiment is None:
            if parent_id is not None and self._exists(parent_id):
                self.state.experiment = str(self._client.get_run(parent_id).info.experiment_id)
            else:
                self.state.experiment = self._experiment_named(event["experiment"])
        return self.state.experiment

    def _experiment_named(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, tags=_KIND))
            except MlflowException:  # another process was faster, or the server has just died
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            # Not a refusal: it waits on disk until somebody has decided.
            raise RuntimeError(f"the experiment {name!r} was deleted; restore it, or name another one")
        return str(found.experiment_id)

    def _log(self, events: list[Event]) -> None:
        run_id = self._run(events[0])
        metrics = [
            Metric(name, value, event["time"], event["step"])
            for event in events
            if event["kind"] == "metrics"
            for name, value in event["values"].items()
        ]
        if self._in_doubt:
            metrics = self._missing(run_id, metrics)
        for part in _parts((Param(*pair) for pair in _pairs(events, "params")), _REQUEST):
            self._client.log_batch(run_id, params=part)
        for part in _parts((RunTag(*pair) for pair in _pairs(events, "tags")), _REQUEST):
            self._client.log_batch(run_id, tags=part)
        for part in _parts(metrics, _REQUEST_METRICS):
            self._client.log_batch(run_id, metrics=part)

    def _missing(self, run_id: str, metrics: list[Metric]) -> list[Metric]:
        stored = {
            (name, point.step, point.timestamp)
            for name in {metric.key for metric in metrics}
            for point in self._client.get_metric_history(run_id, name)
        }
        return [m for m in metrics if (m.key, m.step, m.timestamp) not in stored]

    def _set_status(self, event: Event) -> None:
        run_id, status = self._run(event), event["status"]
        if status == "RUNNING":
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, event["time"])

    def _log_file(self, event: Event) -> None:
        path = Path(os.path.normpath(self.folder / event["path"]))
        if path.is_file():
            self._client.log_artifact(self._run(event), str(path), event.get("folder"))
        else:
            _logger.warning("%s is not there any more; it is left out.", path)


def first_line(error: BaseException) -> str:
    """What an error says, without passwords and the chain of causes that HTTP libraries put into one text."""
    text = without_password((str(error).strip().splitlines() or [type(error).__name__])[0])
    request, separator, causes = text.partition(" failed with exception ")
    if separator:
        reason = re.search(r"\[Errno -?\d+\] [\w ]+|[\w ]*timed out", causes)
        return f"{request}: {reason.group().strip()}" if reason else f"{request}: {causes}"[:300]
    return text[:300]


def _is_refusal(error: Exception) -> bool:
    """Whether trying again would be refused again."""
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    return isinstance(error, (KeyError, TypeError))  # an event that is not one


def _stretches(lines: list[Line]) -> Iterator[list[Line]]:
    """Neighbours that go into the same requests; everything else alone."""
    together: list[Line] = []
    for line in lines:
        if line.event is None or line.event["kind"] in _IN_BATCHES:
            together.append(line)
            continue
        if together:
            yield together
            together = []
        yield [line]
    if together:
        yield together


def _pairs(events: list[Event], kind: str) -> list[tuple[str, str]]:
    return [pair for event in events if event["kind"] == kind for pair in event["values"].items()]


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _time(line: Line) -> int:
    return 0 if line.event is None else int(line.event.get("time", 0))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
