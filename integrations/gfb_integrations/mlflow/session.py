"""One search on its way to MLflow: its spool, its courier, and what it said so far."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from gfb_integrations.mlflow.courier import Mission
from gfb_integrations.mlflow.process import CourierProcess
from gfb_integrations.mlflow.spool import (
    EVENTS,
    FOLDER,
    LOCK,
    LOG,
    MODELS,
    OWN_EVENTS,
    SEARCH,
    STATE,
    Delivered,
    Event,
    EventFile,
    is_delivered,
    without_password,
)

_logger = logging.getLogger("gfb_brevitas.mlflow")


class Session:
    """The events of one call of ``fit``.

    Args:
        run_folder: The run's folder; without one events are kept in a temporary folder.
        uri: The server or store.
        run_id: Id of the search, by which its MLflow runs are found where that they were made got lost.
        goes_on: Whether the run goes on, and its MLflow runs with it.
        system_metrics: Whether the machine's load is sampled.
    """

    def __init__(
        self, run_folder: Path | None, uri: str, run_id: str, *, goes_on: bool, system_metrics: bool
    ) -> None:
        self._lock = threading.Lock()
        self._temporary = run_folder is None
        self.folder = (
            Path(tempfile.mkdtemp(prefix="gfb-mlflow-")) if run_folder is None else run_folder / FOLDER
        ).resolve()
        if not goes_on:
            _clear(self.folder)
        self.uri = uri
        self._events = EventFile(self.folder / EVENTS)
        self.number = self._events.kinds["session"] + 1
        self.id, self.ended, self.closed = uuid4().hex, False, False
        self._run_id = run_id or self.id
        self._failed = False
        self._run_ids: Mapping[str, str] = {}
        self._pid = os.getpid()
        mission = Mission(
            folder=str(self.folder), session=self.id, uri=uri, parent=None, system_metrics=system_metrics
        )
        self._courier = CourierProcess(mission)
        self.add({"kind": "session", "session": self.id, "uri": without_password(uri), "cwd": os.getcwd()})
        for run, state in list(self._events.states.items()):
            if run == SEARCH or state != "FINISHED":
                self._set_state(run, "RUNNING")

    @property
    def courier_pid(self) -> int | None:
        """Process id of the courier, while it lives."""
        return self._courier.pid

    @property
    def run_ids(self) -> Mapping[str, str]:
        """Ids of the MLflow runs that there are so far: ``"search"``, ``"round-01"`` and so on."""
        self._run_ids = Delivered.load(self.folder).runs or self._run_ids
        return self._run_ids

    def add(self, event: Event) -> None:
        """Write an event down, unless it was already; nothing in a process that was forked."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if event["kind"] in ("run", "model"):
                event = {**event, "unique": self._run_id}  # by which it is found where it was made already
            try:
                self._events.append({**event, "time": int(time.time() * 1000)})
                if self._failed:
                    _logger.info("%s can be written again.", self.folder)
                self._failed = False
            except OSError as error:
                if not self._failed:
                    _logger.warning(
                        "%s cannot be written (%s). The search goes on; what MLflow is to be told is kept in "
                        "memory until it can.",
                        *(self._events.path, error.strerror),
                    )
                self._failed = True
            self._courier.keep_alive()

    def add_file(self, run: str, path: Path, folder: str | None = None) -> None:
        """A file as an artifact, once more where it has changed."""
        state = path.stat()
        identity = f"file/{run}/{folder or ''}/{path.name}/{state.st_mtime_ns}/{state.st_size}"
        relative = os.path.relpath(path.resolve(), self.folder)
        self.add({"kind": "file", "run": run, "path": relative, "folder": folder, "id": identity})

    def end(self, status: str) -> None:
        """Say what became of the search, and of rounds that have not ended."""
        self.ended = True
        for run, state in reversed(list(self._events.states.items())):
            if state == "RUNNING":
                self._set_state(run, status)

    def _set_state(self, run: str, state: str) -> None:
        self.add({"kind": "status", "run": run, "status": state, "id": f"{state}/{run}/{self.number}"})

    def close(self, timeout_s: float = 15.0) -> bool:
        """Deliver what is left, for so many seconds at most; whether nothing is left."""
        if os.getpid() != self._pid:
            return False
        if self.closed:
            return is_delivered(self.folder) if self.folder.exists() else True
        self.closed = True
        if not self.ended:
            self.end("FAILED")
        self._courier.close(timeout_s)
        if not is_delivered(self.folder):
            _logger.warning(
                "MLflow has not got everything yet. Once %s is there: gfb mlflow deliver %s",
                without_password(self.uri),
                self.folder if self._temporary else self.folder.parent,
            )
            return False
        if self._temporary:
            self._run_ids = self.run_ids
            shutil.rmtree(self.folder, ignore_errors=True)
        return True


def _clear(folder: Path) -> None:
    """Remove what an earlier run left of which nothing else is there; files of others stay."""
    if not is_delivered(folder):
        _logger.warning("%s is of a run that is not there any more; it is removed.", folder)
    for name in (EVENTS, OWN_EVENTS, STATE, LOG, LOCK):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / MODELS, ignore_errors=True)
