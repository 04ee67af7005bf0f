"""The callback that attaches pictures, notes and files to the studies of a search."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import optuna

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search import (
    Callback,
    EndRecord,
    EpochRecord,
    History,
    RecordedLayerCost,
    RecordedRun,
    RoundRecord,
    StartRecord,
    StepRecord,
)
from gfb_brevitas.search.bulk_insert import is_in_memory
from gfb_brevitas.search.history import Record
from gfb_brevitas.search.storages import Storage, opened_storage
from gfb_brevitas.search.trial_update import ROUND_ATTRIBUTE
from gfb_integrations.optuna_dashboard import figures
from gfb_integrations.optuna_dashboard.attachments import attach_figure, attach_file, attach_note
from gfb_integrations.optuna_dashboard.candidates import StepCandidates, read_candidates
from gfb_integrations.optuna_dashboard.refreshing import Refreshing
from gfb_integrations.optuna_dashboard.text import latest_allocation, round_text, search_text, step_text

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

FILES = ("allocation.json", "summary.json", "report.html", "*.onnx", "finn_*.json")
"""Files of the run folder that become artifacts of the search's study."""

_logger = logging.getLogger("gfb_brevitas.optuna_dashboard")


class DashboardNotes(Callback):
    """Attaches to the studies of a search what optuna-dashboard can show with them.

    - pictures: bits per layer, bits by round, and loss over each cost of all candidates, after every
      gradient-free step and round; at the end of a run with a folder, what each layer takes of the budgets;
    - notes: on the search, on every round and on every gradient-free step; what people write into a note
      stays;
    - files, if there is an artifact store: the allocation, the summary and, once they exist, the report and
      exported models.

    All of it happens in the background. A storage that fails does not stop the search: what could not be
    attached is tried again after the next step, and at the end.

    Example::

        url = "sqlite:///studies.db"
        store = optuna.artifacts.FileSystemArtifactStore("artifacts")
        with DashboardNotes(url, artifact_store=store) as notes:
            result = gfb.fit(searchable, ..., storage=url, run_folder="runs/first", callbacks=[notes])
            export_qonnx(result.model, images[:1], "runs/first/model.qonnx.onnx")

    and ``optuna-dashboard sqlite:///studies.db --artifact-dir artifacts`` shows it.

    Args:
        storage: The storage that is passed to :func:`gfb_brevitas.fit`, or its URL.
        artifact_store: Where files are kept.
        timeout_s: Seconds that the end of the run and :meth:`close` wait for the storage.

    Raises:
        ConfigurationError: If the storage cannot be opened or there is none.
    """

    def __init__(
        self, storage: Storage, *, artifact_store: ArtifactStore | None = None, timeout_s: float = 30.0
    ) -> None:
        opened = opened_storage(storage)
        if opened is None:
            raise ConfigurationError("`storage` must be the Optuna storage of the search; got None.")
        if not timeout_s >= 0:
            raise ConfigurationError(f"`timeout_s` must be at least 0; got {timeout_s!r}.")
        self._storage, self._artifacts, self._timeout_s = opened, artifact_store, timeout_s
        self._refreshing = Refreshing(self._refresh, in_background=not is_in_memory(opened))
        self._name = ""
        self._configuration: Mapping[str, Any] = {}
        self._run_folder: Path | None = None
        self._records: tuple[Record, ...] = ()
        self._candidates: dict[str, StepCandidates] = {}
        self._noted_rounds: set[int] = set()
        self._files: list[Path] = []

    def on_start(self, record: StartRecord) -> None:
        """Begin, or go on with a run that is resumed."""
        self._name, self._configuration = record.name, record.configuration
        self._run_folder, self._records = record.run_folder, tuple(record.history)
        self._candidates, self._noted_rounds = {}, set()
        if record.history:
            self._refreshing.request()

    def on_step(self, record: StepRecord) -> None:
        """A gradient-free step chose an allocation."""
        self._add(record)

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch was trained; pictures and notes follow with the round."""
        self._records = (*self._records, record)

    def on_round(self, record: RoundRecord) -> None:
        """A round ended."""
        self._add(record)

    def on_end(self, record: EndRecord) -> None:
        """Attach what is left, with the files that exist."""
        self._run_folder = record.run_folder
        self.close()

    def attach(self, path: str | os.PathLike[str]) -> None:
        """Keep a file as an artifact of the search's study; one of the same name is replaced.

        Args:
            path: The file.

        Raises:
            ConfigurationError: If there is no artifact store or no such file.
        """
        if self._artifacts is None:
            raise ConfigurationError(
                "Files need an `artifact_store`, such as FileSystemArtifactStore(FOLDER)."
            )
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no file {str(path)!r} to attach.")
        self._files.append(Path(path))
        if self._name:  # else with what the search attaches first
            self._refreshing.request()

    def close(self, timeout_s: float | None = None) -> None:
        """Attach what is left, with files that came into the run folder since; wait for it for a while.

        Args:
            timeout_s: Seconds to wait; by default those that the object was made with.
        """
        if not self._name:
            return
        if self._artifacts is not None and self._run_folder is not None:
            self._files += [file for pattern in FILES for file in sorted(self._run_folder.glob(pattern))]
        self._refreshing.request()
        obstacle = self._refreshing.finish(self._timeout_s if timeout_s is None else timeout_s)
        if obstacle is not None:
            _logger.error("Notes for optuna-dashboard are not complete: %s.", obstacle)

    def __enter__(self) -> DashboardNotes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, record: Record) -> None:
        self._records = (*self._records, record)
        self._refreshing.request()

    def _refresh(self) -> None:
        history = History(self._records)
        study = self._study(self._name)
        for step in history.steps:
            if step.study not in self._candidates:
                self._attach_to_step(step)
        self._attach_to_search(study, history)
        while self._files and self._artifacts is not None:
            attach_file(study, self._artifacts, self._files[0])
            self._files.pop(0)

    def _study(self, name: str) -> optuna.Study:
        try:
            # With a sampler that does nothing by itself.
            return optuna.load_study(
                study_name=name, storage=self._storage, sampler=optuna.samplers.RandomSampler()
            )
        except KeyError:
            raise ConfigurationError(
                f"the storage holds no study {name!r}; pass the same `storage` to fit"
            ) from None

    def _attach_to_step(self, record: StepRecord) -> None:
        study = self._study(record.study)
        label = f"round {record.round}, step {record.step}"
        candidates = read_candidates(study, [str(row["name"]) for row in record.costs], label)
        for j, cost in enumerate(record.costs):
            attach_figure(study, figures.front([candidates], j, cost), f"front-{cost['name']}")
        attach_figure(study, figures.bits_per_layer(record.allocation, f"Bits chosen in {label}"), "bits")
        attach_note(study, step_text(record))
        self._candidates[record.study] = candidates

    def _attach_to_search(self, study: optuna.Study, history: History) -> None:
        latest = latest_allocation(history)
        if latest is not None:
            title = f"Bits per layer, round {latest[0]}"
            attach_figure(study, figures.bits_per_layer(latest[1], title), "bits")
        if len(history.rounds) > 1:
            allocations = {record.round: record.allocation for record in history.rounds}
            attach_figure(study, figures.bits_per_round(allocations), "bits-by-round")
        if self._candidates:
            for j, cost in enumerate(history.steps[-1].costs):
                figure = figures.front(list(self._candidates.values()), j, cost)
                attach_figure(study, figure, f"front-{cost['name']}")
        costs = self._layer_costs()
        if costs:
            attach_figure(study, figures.layer_costs(costs), "layer-costs")
        attach_note(study, search_text(self._name, history, self._configuration))
        for record in history.rounds:
            if record.round not in self._noted_rounds:
                self._attach_to_round(study, record)

    def _layer_costs(self) -> tuple[RecordedLayerCost, ...]:
        """What each layer takes of the budgets, once the run has ended."""
        folder = self._run_folder
        if folder is None or not (folder / "summary.json").exists():
            return ()
        costs = RecordedRun.load(folder).layer_costs
        return () if costs is None else costs.budgets

    def _attach_to_round(self, study: optuna.Study, record: RoundRecord) -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get(ROUND_ATTRIBUTE) == record.round:
                attach_note(study, round_text(record), trial.number)
                self._noted_rounds.add(record.round)
