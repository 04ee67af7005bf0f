"""One run: alternating gradient-free steps and gradient-based epochs, stoppable anywhere."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import optuna
import torch

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.constraints import Constraints
from gfb_brevitas.distributed import current_world
from gfb_brevitas.errors import BatchError, CheckpointError
from gfb_brevitas.evaluation.batches import Batches, LossFunction, device_of, moved, one_pass
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed
from gfb_brevitas.samplers import CmaState
from gfb_brevitas.search.callbacks import AnyCallback, StartRecord, notify
from gfb_brevitas.search.checkpoint import (
    BestState,
    Checkpoint,
    content_digest,
    model_state,
    snapshot,
)
from gfb_brevitas.search.config import SearchConfig
from gfb_brevitas.search.following import (
    Beginning,
    SharedGenerationLog,
    heard_beginning,
    require_same_weights,
    take_over_tensors,
    told_beginning,
)
from gfb_brevitas.search.generation_log import GenerationLog
from gfb_brevitas.search.gradient_free import GradientFreeStep, cost_rows
from gfb_brevitas.search.history import (
    CalibrationRecord,
    EpochRecord,
    History,
    Record,
    RoundRecord,
    StepRecord,
)
from gfb_brevitas.search.layer_costs import layer_costs_document
from gfb_brevitas.search.loading import load_state
from gfb_brevitas.search.loop_trainer import LoopTrainer
from gfb_brevitas.search.loss_watch import LossReference, LossWatch, measured_reference
from gfb_brevitas.search.plan import Unit, planned_units, step_name
from gfb_brevitas.search.run_folder import RunFolder, add_to_summary
from gfb_brevitas.search.run_profile import mean_clipping_values, profile_document
from gfb_brevitas.search.run_studies import RunStudies
from gfb_brevitas.search.threads import measured_threads
from gfb_brevitas.search.training import Trainer
from gfb_brevitas.search.validation import Validation, is_better
from gfb_brevitas.sensitivity import Allocator
from gfb_brevitas.space import Bits

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

CALIBRATION_BATCHES = 8
"""Training batches that clipping is calibrated on when no others are given [ours]."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The data of a run.

    Attributes:
        train: What weights are trained on.
        search: What super-batches are drawn from.
        calibration: What clipping is calibrated on; ``None`` takes the first training batches.
    """

    train: Batches
    search: Batches
    calibration: Batches | None


class Run:
    """A run between its units.

    In several processes all have a run; the first one's has the folder, the storage and the callbacks,
    the others follow it.

    Args:
        model: The model to search and train.
        loss: ``loss(model, batch)``.
        data: The data.
        constraints: The budgets, with the search space.
        search: Settings of the search.
        trainer: Trains the model; ``None`` if there are no epochs.
        validation: Computes the metric.
        pretrain: The allocation of the pretraining.
        start: The allocation that the search starts from.
        searched: Whether there are gradient-free steps; otherwise ``start`` stays.
        calibrate: Whether clipping is calibrated first.
        name: First part of the Optuna studies' names.
        storage: Where studies are copied to, if anywhere.
        folder: Where the run is kept, if anywhere; opened.
        callbacks: Who is told.
    """

    def __init__(
        self,
        *,
        model: SearchableModel,
        loss: LossFunction,
        data: RunData,
        constraints: Constraints,
        search: SearchConfig,
        trainer: Trainer | LoopTrainer | None,
        validation: Validation,
        pretrain: BitAllocation,
        start: BitAllocation,
        searched: bool,
        calibrate: bool,
        name: str,
        storage: optuna.storages.BaseStorage | None,
        folder: RunFolder | None,
        callbacks: Sequence[AnyCallback],
    ) -> None:
        self.model, self.loss, self.data = model, loss, data
        self.constraints, self.search = constraints, search
        self.trainer, self.validation, self.searched = trainer, validation, searched
        self.name, self.folder, self.callbacks = name, folder, callbacks
        self.world = current_world()
        self.path = None if folder is None else folder.path
        self.units = planned_units(search, calibrate=calibrate, searched=searched)
        self.threads = torch.get_num_threads()
        self.completed = 0
        self.metric = math.nan
        self.best: BestState | None = None
        self._distribution: str | None = None
        self._records: list[Record] = []
        self._start = start
        self._id = uuid4().hex
        self._was_complete = False
        self._under_way = False
        self._pretrain = pretrain
        self._studies = RunStudies(
            storage,
            name=name,
            units=self.units,
            constraints=constraints,
            unwritten=None if folder is None else folder.unwritten,
        )
        model.set_allocation(pretrain if search.pretrain_epochs else start)

    @property
    def history(self) -> History:
        """All records so far."""
        return History(tuple(self._records))

    def begin(self, configuration: dict[str, Any], versions: dict[str, str]) -> None:
        """Start a new run."""
        self._studies.require_none()
        self.threads = self._chosen_threads()
        if self.folder is not None:
            self.folder.clear()
            self.folder.goes_on()
            self._save()
            profile = profile_document(self.constraints)
            self.folder.begin(self._id, configuration, versions, profile, threads=self.threads)
        self._under_way = True
        self._lead(None)
        self._notify_start(configuration, resumed=False)

    def go_on(self, configuration: dict[str, Any]) -> None:
        """Continue the run in the folder.

        Raises:
            CheckpointError: If it is another run, or its files are damaged.
        """
        assert self.folder is not None
        self.folder.require_same(configuration)
        self._id = self.folder.run_id
        self.threads = self.folder.threads or torch.get_num_threads()
        checkpoint = self.folder.checkpoints.load()
        self._records = list(self.folder.history(checkpoint.records))
        self._restore(checkpoint)
        self._studies.make_room(self._id, self.completed)
        self.folder.goes_on()
        self._under_way = True
        _logger.info("Resumed after %d of %d units.", self.completed, len(self.units))
        self._lead(checkpoint)
        self._notify_start(configuration, resumed=True)

    def follow(self) -> None:
        """Begin or go on as the first process does."""
        beginning = heard_beginning(self.world)
        self._id, self.path, self._records = beginning.run_id, beginning.path, list(beginning.records)
        if beginning.checkpoint is not None:
            self._restore(beginning.checkpoint)
        take_over_tensors(self.world, self.model, "model at the beginning")

    def finish_units(self) -> None:
        """Do everything that is left."""
        perform = {
            "calibrate": self._calibrate,
            "step": self._step,
            "epoch": self._epoch,
            "round": self._end_round,
        }
        with self._studies.written(
            self._id,
            self.completed,
            self.history,
            pretrain=self._pretrain,
            start=self._start,
            attributes=self._attributes(),
        ):
            for unit in self.units[self.completed :]:
                self._complete(perform[unit.kind](unit))

    def restore_best(self) -> BestState:
        """Bring the model to the best feasible state.

        Raises:
            CheckpointError: If the checkpoint that was resumed from holds none.
        """
        # The last unit is the end of a round, whose state is always a candidate.
        if self.best is None:
            raise CheckpointError(
                "The checkpoint of the finished run holds no best state; it is damaged. Start the run anew."
            )
        load_state(self.model, self.best.allocation, self.best.model)
        self.model.eval()
        return self.best

    def write_result(self, allocation: BitAllocation, summary: dict[str, Any]) -> None:
        """Write the results into the folder, if there is one and they are not there already."""
        # Others add figures to a summary; that of a run that was complete already stays as it is.
        if self.folder is not None and not (self._was_complete and self.folder.holds_result):
            bits = self.model.space.bits(allocation)
            self.folder.finish(
                allocation,
                summary,
                mean_clipping_values(self.model),
                layer_costs_document(self.constraints, bits),
            )
        elif self.folder is not None and "test_metric" in summary:  # of test data that was not there then
            add_to_summary(self.folder.path, {"test_metric": summary["test_metric"]})

    def note_failure(self, error: BaseException) -> None:
        """Keep in the folder, if there is one and the run in it is this one, of what the run ends here."""
        if self.folder is not None and self._under_way:
            cause = error.__cause__ if isinstance(error, BatchError) else None
            self.folder.failed(cause or error)

    def _calibrate(self, unit: Unit) -> CalibrationRecord:
        began = time.perf_counter()
        seed = derive_seed(self.search.seed, "calibration", unit.number)
        if self.data.calibration is None:
            batches = one_pass(self.data.train, seed, CALIBRATION_BATCHES, name="train_batches")
        else:
            batches = one_pass(self.data.calibration, seed, name="calibration_batches")
        numbers = count(1)
        device = device_of(self.model)
        with RandomStream(seed).active(), inference_only(self.model):
            drawn = (batch for batch, _ in zip(batches, numbers, strict=False))
            self.model.calibrate(drawn, forward=lambda batch: self.loss(self.model, moved(batch, device)))
        take_over_tensors(self.world, self.model, "model after calibration")
        return CalibrationRecord(
            seconds=time.perf_counter() - began,
            batches=next(numbers) - 1,
            allocation=dict(self.model.allocation),
            costs=cost_rows(self.constraints, self._bits()),
        )

    def _step(self, unit: Unit) -> StepRecord:
        carried = self.search.carry_distribution and self._distribution is not None
        step = GradientFreeStep(
            model=self.model,
            loss=self.loss,
            batches=self.data.search,
            constraints=self.constraints,
            config=self.search,
            round=unit.round,
            step=unit.number,
            study_name=self._studies.name_of(unit),
            writer=self._studies.writer,
            metric=self._step_metric(),
            log=self._generation_log(unit),
            on_generation=self._keep,
        )
        distribution = CmaState.from_json(self._distribution) if carried and self._distribution else None
        outcome = step.run(self._bits(), distribution)
        self.model.set_allocation(outcome.record.allocation)
        self._distribution = None if outcome.distribution is None else outcome.distribution.to_json()
        return outcome.record

    def _step_metric(self) -> Callable[[], float] | None:
        if self.search.choose_by == "loss" or not self.validation.is_users:
            return None
        return lambda: self.world.first_value("metric of a candidate", lambda: self.validation(self.model))

    def _epoch(self, unit: Unit) -> EpochRecord:
        assert self.trainer is not None
        began = time.perf_counter()
        watch = self._loss_watch(unit)
        recovery = self._recovery(unit.number)
        outcome = self.trainer.run_epoch(self.data.train, unit.number, recovery=recovery, watch=watch)
        best = self._validate(unit.number + 1)
        feasible = self._feasible()
        if unit.number + 1 == self.search.pretrain_epochs:
            self.model.set_allocation(self._start)
        record = EpochRecord(
            seconds=time.perf_counter() - began,
            epoch=unit.number + 1,
            round=unit.round,
            train_loss=outcome.train_loss,
            learning_rate=outcome.learning_rate,
            metric=self.metric,
            feasible=feasible,
            best=best,
            loss_before=watch.reference.before if unit.number == 0 else math.nan,
            constant_loss=watch.reference.constant if unit.number == 0 else math.nan,
            warning=watch.told,
        )
        _logger.info(
            "Epoch %d of %d: training loss %.5g, metric %.5g%s.",
            *(record.epoch, self.search.epochs, record.train_loss, record.metric, ", the best" * best),
        )
        return record

    def _chosen_threads(self) -> int:
        if self.search.threads != "auto":
            return self.search.threads
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.world.size > 1 else 1
        seed = derive_seed(self.search.seed, "threads")
        return measured_threads(self.model, self.loss, self.data.train, seed=seed, processes=processes)

    def _loss_watch(self, unit: Unit) -> LossWatch:
        epochs = self.history.epochs
        stops = self.search.at_chance == "stop"
        if self.history.warnings:  # once is enough
            return LossWatch(LossReference())
        if epochs:
            first = epochs[0]
            reference = LossReference(before=first.loss_before, constant=first.constant_loss)
            losses = [epoch.train_loss for epoch in epochs]
            return LossWatch(reference, best=min(losses), last=losses[-1], stops=stops)
        seed = derive_seed(self.search.seed, "loss before training", unit.number)
        own = measured_reference(self.model, self.loss, self.data.train, seed=seed)
        before = self.world.first_value("loss before training", lambda: own.before)
        constant = self.world.first_value("loss of a constant answer", lambda: own.constant)
        return LossWatch(LossReference(before=before, constant=constant), stops=stops)

    def _end_round(self, unit: Unit) -> RoundRecord:
        began = time.perf_counter()
        if not self.search.epochs_per_round:
            self._validate(self.search.pretrain_epochs)
        require_same_weights(self.world, self.model, f"at the end of round {unit.round}")
        record = RoundRecord(
            seconds=time.perf_counter() - began,
            round=unit.round,
            metric=self.metric,
            best_metric=math.nan if self.best is None else self.best.metric,
            allocation=dict(self.model.allocation),
            costs=cost_rows(self.constraints, self._bits()),
        )
        uses = ", ".join(f"{row['name']} at {100 * row['use']:.1f} %" for row in record.costs)
        _logger.info("Round %d: metric %.5g; budgets used: %s.", record.round, record.metric, uses or "none")
        return record

    def _validate(self, epochs: int) -> bool:
        """Compute the metric of the present state; keep the state if it is the best feasible one."""
        self.metric = self.world.first_value("validation metric", lambda: self.validation(self.model))
        may_win = (
            self._feasible() and self._is_full() if self.searched else self.model.allocation == self._start
        )
        if not may_win or not is_better(self.metric, None if self.best is None else self.best.metric):
            return False
        self.best = BestState(
            metric=self.metric,
            epochs=epochs,
            allocation=dict(self.model.allocation),
            model=snapshot(self.model),
        )
        if self.folder is not None:
            self.folder.require_in_place()
            self.folder.checkpoints.save_best(self.best)
        return True

    def _complete(self, record: Record) -> None:
        self._keep(record, tell=False)
        self._studies.keep_unwritten()  # before the checkpoint, after which the step would not be repeated
        self.completed += 1
        self._save()
        self._notify(record)

    def _keep(self, record: Record, *, tell: bool = True) -> None:
        self._records.append(record)
        if self.folder is not None:
            self.folder.append(record)
        if tell:
            self._notify(record)

    def _notify(self, record: Record) -> None:
        self._studies.tell(record)  # before callbacks, which may raise
        notify(self.callbacks, record)

    def _save(self) -> None:
        if self.folder is not None:
            self.folder.checkpoints.save(
                Checkpoint(
                    completed=self.completed,
                    records=len(self._records),
                    allocation=dict(self.model.allocation),
                    metric=self.metric,
                    distribution=self._distribution,
                    model=snapshot(self.model),
                    optimizer={} if self.trainer is None else self.trainer.state_dict(),
                    best=self.best,
                )
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        if not 0 <= checkpoint.completed <= len(self.units):
            raise CheckpointError(
                f"The checkpoint is damaged: it speaks of {checkpoint.completed} of {len(self.units)} units. "
                "Start the run anew."
            )
        self.completed, self.metric, self.best = checkpoint.completed, checkpoint.metric, checkpoint.best
        self._distribution = checkpoint.distribution
        self._was_complete = self.completed == len(self.units)
        load_state(self.model, checkpoint.allocation, checkpoint.model)
        if self.trainer is not None:
            self.trainer.load_state_dict(checkpoint.optimizer)

    def _lead(self, checkpoint: Checkpoint | None) -> None:
        told_beginning(
            self.world,
            Beginning(run_id=self._id, path=self.path, checkpoint=checkpoint, records=self._records),
        )
        take_over_tensors(self.world, self.model, "model at the beginning")

    def _generation_log(self, unit: Unit) -> GenerationLog | None:
        if self.path is None:
            return None
        log = self._own_generation_log(unit)
        return log if self.world.size == 1 else SharedGenerationLog(self.world, log)

    def _own_generation_log(self, unit: Unit) -> GenerationLog | None:
        if self.folder is None:
            return None
        state = content_digest(dict(model_state(self.model)))
        return self.folder.generation_log(
            step_name(unit), {"round": unit.round, "step": unit.number, "state": state}
        )

    def _notify_start(self, configuration: dict[str, Any], *, resumed: bool) -> None:
        path = None if self.folder is None else self.folder.path
        start = StartRecord(
            configuration=configuration,
            run_folder=path,
            resumed=resumed,
            history=self.history,
            name=self.name,
            run_id=self._id,
        )
        notify(self.callbacks, start)

    def _bits(self) -> Bits:
        return self.model.space.bits(self.model.allocation)

    def _feasible(self) -> bool:
        return bool(self.constraints.feasible(self._bits()[None, :])[0])

    def _is_full(self) -> bool:
        """Whether no budget leaves room for one more bit: others are not what a search returns."""
        return self._allocator.is_full(self._bits())

    @cached_property
    def _allocator(self) -> Allocator:
        return Allocator(self.constraints)

    def _attributes(self) -> dict[str, Any]:
        """What the study of the run says of it."""
        attributes: dict[str, Any] = {"seed": self.search.seed}
        if self.searched:
            attributes["method"] = self.search.method
        if self.path is not None:
            attributes["run_folder"] = str(self.path.resolve())
        return attributes

    def _recovery(self, epoch: int) -> str:
        if not self.world.is_first:
            return ""
        if self.folder is None:
            return "Without a run folder nothing of the run is kept."
        return (
            f"Everything up to the end of epoch {epoch} is in {str(self.folder.checkpoints.latest)!r}"
            f"{f', the best state in {str(self.folder.checkpoints.best)!r}' if self.best else ''}."
            f"{self._way_on() if self.best else ''}"
        )

    def _way_on(self) -> str:
        path = "" if self.folder is None else str(self.folder.path)
        return (
            f" gfb_brevitas.load_best({path!r}, model) brings a model to the best state, and fit(model, "
            "calibrate=False, run_folder=...) goes on from there with other settings in a new folder."
        )
