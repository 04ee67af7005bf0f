"""The callback that tells MLflow what a search does."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_brevitas.search import Callback, EndRecord, SearchResult, StartRecord
from gfb_brevitas.search.history import (
    EpochRecord,
    GenerationRecord,
    Record,
    RoundRecord,
    StepRecord,
)
from gfb_integrations._optional import require
from gfb_integrations.mlflow.events import (
    RecordEvents,
    cost_values,
    flat_parameters,
    metric_name,
    metrics,
    parameters,
    text,
)
from gfb_integrations.mlflow.git_state import git_state
from gfb_integrations.mlflow.models import saved_once
from gfb_integrations.mlflow.origin import active_run_id, package_versions, source_tags, status_after
from gfb_integrations.mlflow.session import Session
from gfb_integrations.mlflow.spool import EXPERIMENT, MODELS, SEARCH, absolute

if TYPE_CHECKING:
    from torch import Tensor

require("mlflow", extra="mlflow", purpose="Tracking with MLflow")

FILES_AT_END = (
    "config.json",
    "profile.json",
    "allocation.json",
    "clipping.json",
    "layer_costs.json",
    "summary.json",
    "history.jsonl",
    "run.log",
)
"""Files of the run folder that are logged when the run ends."""
FILES_AFTERWARDS = (
    *("report.html", "*.onnx", "*.png", "*.svg", "plots/*"),
    *("finn_estimate.json", "finn_verification.json", "folding.json"),
)
"""Files of the run folder that are logged when the tracking is closed."""
_MOST_OF_TAG, _MOST_OF_NAME = 5000, 500  # characters, what every MLflow store takes

_logger = logging.getLogger("gfb_brevitas.mlflow")
_Method = TypeVar("_Method", bound=Callable[..., None])


def _never_stopping(method: _Method) -> _Method:
    """An error in a callback would end the search."""

    @functools.wraps(method)
    def guarded(self: MlflowTracking, record: Any) -> None:
        try:
            method(self, record)
        except Exception:
            _logger.exception("Tracking with MLflow failed; the search goes on.")

    return cast("_Method", guarded)


class MlflowTracking(Callback):
    """Tracks a search with MLflow: a run for the search, and one inside it for each round.

    The events go to a file first (``mlflow`` in the run folder). Another process delivers them, in order and
    once, whether the server is slow, away at the start, or dies in between; the search waits for none of it.
    A run that is resumed goes on in the same MLflow runs. What could not be delivered while the program ran
    is delivered by ``gfb mlflow deliver RUN``, or when the run is resumed.

    MLflow's active run and global settings are left as they are. If there is an active run of the same store
    when the search starts, the search's run is nested under it, in its experiment.

    Example::

        with MlflowTracking(experiment="resnet") as tracking:
            result = gfb.fit(searchable, ..., run_folder="runs/first", callbacks=[tracking])
            tracking.log_model(result, images[:8], registered_name="resnet-3-bits")

    Without ``with`` the tracking is closed when the program ends.

    Args:
        tracking_uri: The server, or a store such as ``"sqlite:///mlflow.db"``; by default what MLflow is set
            to (``mlflow.set_tracking_uri``, ``MLFLOW_TRACKING_URI``), else MLflow's own default, a store in
            the current folder that ``mlflow ui`` shows.
        experiment: Name of the experiment; made if there is none.
        run_name: Name of the search's run; by default that of the run folder.
        parent_run_id: A run to nest the search's run under, instead of the active one.
        tags: Tags of the search's run.
        log_artifacts: Whether files of the run folder are logged.
        system_metrics: Whether the machine's load is logged.
        timeout_s: Seconds that closing waits for the server.
        project: A folder of your code, whose commit and state in git are logged; by default that of the
            running script.

    Raises:
        ConfigurationError: If the experiment's name or ``timeout_s`` is outside its rule.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str = EXPERIMENT,
        run_name: str | None = None,
        parent_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        log_artifacts: bool = True,
        system_metrics: bool = True,
        timeout_s: float = 15.0,
        project: str | os.PathLike[str] | None = None,
    ) -> None:
        if not (isinstance(experiment, str) and experiment.strip() and len(experiment) <= _MOST_OF_NAME):
            raise ConfigurationError(
                f"`experiment` must be a name of 1 to {_MOST_OF_NAME} characters; got {experiment!r:.60}."
            )
        if not timeout_s >= 0:
            raise ConfigurationError(f"`timeout_s` must be at least 0; got {timeout_s!r}.")
        self._tracking_uri, self._experiment, self._run_name = tracking_uri, experiment, run_name
        self._parent_run_id = parent_run_id
        self._tags = {
            metric_name(str(name)): str(value)[:_MOST_OF_TAG] for name, value in (tags or {}).items()
        }
        self._log_artifacts, self._system_metrics = log_artifacts, system_metrics
        self._timeout_s = timeout_s
        self._project = None if project is None else Path(project)
        self._session: Session | None = None
        self._run_folder: Path | None = None
        self._record_events = RecordEvents()

    @property
    def run_id(self) -> str | None:
        """Id of the search's MLflow run; ``None`` until it was made."""
        return self.run_ids.get(SEARCH)

    @property
    def run_ids(self) -> Mapping[str, str]:
        """Ids of the MLflow runs: ``"search"``, ``"pretraining"``, ``"round-01"`` and so on."""
        return {} if self._session is None else self._session.run_ids

    @property
    def courier_pid(self) -> int | None:
        """Process id of the process that delivers, while there is one."""
        return None if self._session is None else self._session.courier_pid

    @_never_stopping
    def on_start(self, record: StartRecord) -> None:
        """Make or find the search's run; parameters."""
        if self._session is not None:
            self._session.close(self._timeout_s)
        self._run_folder, self._record_events = record.run_folder, RecordEvents()
        session = Session(
            record.run_folder,
            self._uri(),
            record.run_id,
            goes_on=record.resumed,
            system_metrics=self._system_metrics,
        )
        self._session = session
        atexit.register(self._close_at_exit)  # where nobody else does
        git = git_state(self._project)
        session.add(self._run_event(record, session, git))
        session.add(parameters(SEARCH, flat_parameters(record.configuration), identity="params"))
        state = {f"git.{name}": value for name, value in git.items()}
        session.add(parameters(SEARCH, package_versions() | state, identity="params/versions"))
        for earlier in record.history:  # what a search that was killed could not write down any more
            self._tell(earlier)

    @_never_stopping
    def on_generation(self, record: GenerationRecord) -> None:
        """Metrics of a generation."""
        self._tell(record)

    @_never_stopping
    def on_step(self, record: StepRecord) -> None:
        """Metrics of a gradient-free step, and the allocation that it chose."""
        self._tell(record)

    @_never_stopping
    def on_epoch(self, record: EpochRecord) -> None:
        """Metrics of an epoch."""
        self._tell(record)

    @_never_stopping
    def on_round(self, record: RoundRecord) -> None:
        """Metrics and costs of a round; its run ends."""
        self._tell(record)

    @_never_stopping
    def on_end(self, record: EndRecord) -> None:
        """The result, and the files of the run folder."""
        if self._session is None:
            return
        summary, number = record.summary, self._session.number
        numbers = ("metric", "test_metric", "best_epoch", "evaluations", "epochs", "seconds")
        values = {f"result/{name}": summary[name] for name in numbers if summary.get(name) is not None}
        values |= {f"result/{name}": value for name, value in cost_values(summary.get("costs", ())).items()}
        self._session.add(metrics(SEARCH, values, step=0, identity="result"))
        if record.run_folder is None:
            for name, content in (("allocation", summary.get("allocation")), ("summary", summary)):
                self._session.add(text(SEARCH, f"{name}.json", content, identity=f"result/{name}/{number}"))
        else:
            self._add_files(FILES_AT_END)
        self._session.end("FINISHED")

    def log_artifact(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Log a file of your own in the search's run; its content at the time of delivery.

        Args:
            path: The file.
            folder: Folder among the run's artifacts.

        Raises:
            ConfigurationError: If no search was started, or there is no such file.
        """
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no file {str(path)!r} to log.")
        self._started().add_file(SEARCH, Path(path), folder)

    def log_model(
        self,
        result: SearchResult,
        example: Tensor | tuple[Tensor, ...],
        *,
        name: str = "model",
        registered_name: str | None = None,
    ) -> bool:
        """Log the final model with ``mlflow.onnx``, with signature and example; MLflow loads and serves it.

        It is written with ONNX's own quantization operators, and compared with PyTorch on the example. They
        carry 2 to 8 bits; a model with other widths is not logged, and the log and a tag say why. (Its
        QONNX file is an artifact like others, see :meth:`log_artifact`.)

        Args:
            result: The result of the search.
            example: An input with the samples first; a tuple when the model takes several.
            name: Name of the model.
            registered_name: Name to register it under, if any.

        Returns:
            Whether ONNX could carry the model.

        Raises:
            ConfigurationError: If no search was started, or a name is none that MLflow takes.
            MissingExtraError: If ONNX or ONNX Runtime is not installed.
        """
        session = self._started()
        if "/" in name or (registered_name and set(registered_name) & set(":/'")):
            raise ConfigurationError(
                "The name of a model holds no '/', and the name that it is registered under no ':', '/' or "
                f'"\'"; got {name!r} and {registered_name!r}.'
            )
        try:
            place = saved_once(result.model, example, session.folder / MODELS, name)
        except ExportError as error:
            _logger.warning("MLflow gets no model: %s", error)
            reason = {"gfb_brevitas.model": f"not logged: {str(error).splitlines()[-1]}"[:500]}
            session.add({"kind": "tags", "run": SEARCH, "values": reason, "id": f"model/{name}/none"})
            return False
        relative = place.relative_to(session.folder).as_posix()
        session.add(
            {
                "kind": "model",
                "run": SEARCH,
                "path": relative,
                "name": name,
                "registered_name": registered_name,
                "id": f"model/{relative}/{registered_name or ''}",
            }
        )
        return True

    def close(self, status: str | None = None) -> bool:
        """Log files that were made after the search, and deliver what is left.

        Args:
            status: What became of a search that has not ended: ``"FAILED"`` (by default) or ``"KILLED"``.

        Returns:
            Whether all was delivered. What was not stays on disk, see ``gfb mlflow deliver``.
        """
        atexit.unregister(self._close_at_exit)
        if self._session is None:
            return True
        if not self._session.closed:
            if self._session.ended:
                self._add_files(FILES_AFTERWARDS)
            elif status is not None:
                self._session.end(status)
        return self._session.close(self._timeout_s)

    def __enter__(self) -> MlflowTracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(status_after(error))

    def _close_at_exit(self) -> None:
        self.close(status_after(getattr(sys, "last_value", None)))

    def _tell(self, record: Record) -> None:
        if self._session is not None:
            for event in self._record_events.of(record):
                self._session.add(event)

    def _run_event(self, record: StartRecord, session: Session, git: Mapping[str, str]) -> dict[str, Any]:
        name = self._run_name or (None if record.run_folder is None else record.run_folder.resolve().name)
        return {
            "kind": "run",
            "run": SEARCH,
            "name": name,
            "experiment": self._experiment,
            "parent_run_id": self._parent_run_id or active_run_id(session.uri),
            "tags": {**source_tags(record.run_folder, git), **self._tags},
            "id": f"run/{SEARCH}",
        }

    def _add_files(self, patterns: Iterable[str]) -> None:
        if self._session is None or self._run_folder is None or not self._log_artifacts:
            return
        for pattern in patterns:
            for path in sorted(self._run_folder.glob(pattern)):
                if path.is_file():
                    folder = path.relative_to(self._run_folder).parent.as_posix()
                    self._session.add_file(SEARCH, path, None if folder == "." else folder)

    def _uri(self) -> str:
        import mlflow

        return absolute(self._tracking_uri or str(mlflow.get_tracking_uri()))

    def _started(self) -> Session:
        if self._session is None:
            raise ConfigurationError(
                "No search was started with this tracking. Pass it to fit(callbacks=...)."
            )
        if self._session.closed:
            raise ConfigurationError("The tracking is closed. Log before close(), or inside the with block.")
        return self._session
