"""A gradient-free step: the bit widths move, the weights stay.

The paper's Algorithm 1 (Bodner et al., 2022, doi:10.3390/s22249772), in [ours] detail: sample a
generation, round to bits, evaluate on the current super-batch, tell, replace one minibatch, until the
evaluations are used up or CMA-ES stops; then choose (:mod:`gfb_brevitas.search.selection`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.distributed import current_world, shared
from gfb_brevitas.errors import BatchError
from gfb_brevitas.evaluation.batch_faults import require_samples
from gfb_brevitas.evaluation.batches import Batches, LossFunction, device_of, moved, one_pass
from gfb_brevitas.evaluation.batchnorm import own_statistics
from gfb_brevitas.evaluation.evaluator import Evaluator, Planned, account_of, make_evaluator
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed
from gfb_brevitas.evaluation.super_batch import SuperBatch
from gfb_brevitas.notices import notify
from gfb_brevitas.samplers import CmaState, default_population_size
from gfb_brevitas.search.config import SearchConfig
from gfb_brevitas.search.generation_log import GenerationLog
from gfb_brevitas.search.guided import GuidedStudy
from gfb_brevitas.search.history import Candidate, CostRows, GenerationRecord, StepRecord
from gfb_brevitas.search.selection import SampledCandidates, by_metric, candidates_to_choose_from, reevaluated
from gfb_brevitas.search.study import Generation, StepStudy, make_sampler
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.sensitivity import Allocator, SensitivityTable, estimate_sensitivity
from gfb_brevitas.space import Bits, SearchSpace, Vector

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

_SENSITIVITY_BATCHES = 4
_STATISTICS_BATCHES = 8

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a gradient-free step gave.

    Attributes:
        bits: Shape ``(quantizers,)``, the chosen allocation; feasible.
        record: The step's record.
        distribution: CMA-ES's final distribution; ``None`` when there was nothing to search.
    """

    bits: Bits
    record: StepRecord
    distribution: CmaState | None


class GradientFreeStep:
    """One gradient-free step.

    Args:
        model: The model; its weights are not changed, its allocation is restored.
        loss: ``loss(model, batch)``.
        batches: The data of super-batches and re-evaluation.
        constraints: The budgets, with the search space.
        config: Settings.
        round: Round, from 1.
        step: Step of the round, from 1.
        study_name: Name of the Optuna study.
        writer: Writes the study's trials into the user's storage, if there is one.
        metric: The validation metric of the model as it is, by which the choice is made; ``None``: by loss.
        log: Losses of a step that was stopped before its end, if any are kept.
        on_generation: Called after every generation.
    """

    def __init__(
        self,
        *,
        model: SearchableModel,
        loss: LossFunction,
        batches: Batches,
        constraints: Constraints,
        config: SearchConfig,
        round: int,
        step: int,
        study_name: str,
        writer: TrialWriter | None = None,
        metric: Callable[[], float] | None = None,
        log: GenerationLog | None = None,
        on_generation: Callable[[GenerationRecord], None] | None = None,
    ) -> None:
        self.model, self.loss, self.batches = model, loss, batches
        self.constraints, self.config = constraints, config
        self.round, self.step, self.study_name = round, step, study_name
        self.writer, self.log, self.on_generation = writer, log, on_generation
        self.metric = metric
        self.space: SearchSpace = constraints.space
        self._device = device_of(model)
        self._told = ""

    def run(self, incumbent: Bits, distribution: CmaState | None = None) -> StepOutcome:
        """Search from an allocation.

        Args:
            incumbent: Shape ``(quantizers,)``; need not be feasible.
            distribution: CMA-ES's distribution to go on from; ``None`` starts at ``incumbent``.

        Raises:
            EmptyDataError: If the data yields nothing.
            CheckpointError: If the log belongs to another search.
        """
        if not len(self.space):
            return self._nothing_to_search(incumbent)
        began = time.perf_counter()
        super_batch = self._super_batch()
        study = self._study(incumbent, distribution, super_batch)
        evaluator = shared(
            make_evaluator(
                *(self.config.evaluator, self.model, self.loss, self.config.batchnorm),
                self._plan(super_batch),
            )
        )
        with nullcontext() if self.writer is None else self.writer.flushed():
            samples, generations, stopped = self._search(study, evaluator, super_batch)
            candidates = self._choose(study, evaluator, samples, incumbent, super_batch)
        bits = np.array(candidates[0].bits, dtype=np.int64)
        record = StepRecord(
            seconds=time.perf_counter() - began,
            round=self.round,
            step=self.step,
            study=self.study_name,
            evaluations=sum(len(generation.bits) for generation in generations),
            distinct=len(samples),
            generations=len(generations),
            feasible_share=float(np.mean(np.concatenate([g.feasible for g in generations]))),
            stopped=stopped,
            allocation=dict(self.space.allocation(bits)),
            costs=cost_rows(self.constraints, bits),
            candidates=tuple(candidates),
            evaluator=account_of(evaluator, self.config.evaluator),
        )
        _log_step(record)
        return StepOutcome(bits=bits, record=record, distribution=study.distribution())

    @property
    def population_size(self) -> int:
        """Candidates per generation."""
        if self.config.population_size is not None:
            return self.config.population_size
        return min(default_population_size(len(self.space)), self.config.evaluations_per_step)

    def _seed(self, purpose: str, *more: int) -> int:
        return derive_seed(self.config.seed, purpose, self.round, self.step, *more)

    def _study(
        self, incumbent: Bits, distribution: CmaState | None, super_batch: SuperBatch
    ) -> StepStudy | GuidedStudy:
        if self.config.method == "surrogate":
            return self._guided_study(incumbent, distribution, super_batch)
        sampler = make_sampler(
            self.space,
            incumbent,
            step_size=self.config.step_size,
            population_size=self.population_size,
            seed=self._seed("cma"),
            distribution=distribution,
        )
        return StepStudy(self.constraints, sampler, name=self.study_name, writer=self.writer)

    def _guided_study(
        self, incumbent: Bits, distribution: CmaState | None, super_batch: SuperBatch
    ) -> GuidedStudy:
        return GuidedStudy(
            self.constraints,
            incumbent,
            lambda: self._agreed_sensitivity(super_batch),
            name=self.study_name,
            seed=self._seed("surrogate"),
            step_size=self.config.step_size,
            population_size=self.population_size,
            overlap=0 if self.config.super_batch == "fixed" else len(super_batch),
            distribution=distribution,
            writer=self.writer,
        )

    def _sensitivity(self, super_batch: SuperBatch) -> SensitivityTable | None:
        batches = islice(super_batch, _SENSITIVITY_BATCHES)
        try:
            with RandomStream(self._seed("sensitivity")).active():
                return estimate_sensitivity(self.model, self.loss, batches, self.config.batchnorm)
        except (BatchError, RuntimeError, TypeError) as error:
            # A loss that cannot be differentiated, or too little memory for a backward pass.
            reason = str(error).split("\n")[0]
            _logger.warning("The search starts without a sensitivity estimate, which failed: %s", reason)
            return None

    def _agreed_sensitivity(self, super_batch: SuperBatch) -> SensitivityTable | None:
        """The first process's estimate: one that differs in the last bit, or fails, leads elsewhere."""
        agreed = self._agreed(self._sensitivity(super_batch))
        if agreed is not None and self.log is not None:
            self.log.keep_sensitivity(agreed)
        return agreed

    def _agreed(self, table: SensitivityTable | None) -> SensitivityTable | None:
        increases = b"" if table is None else table.increases.tobytes()
        told = current_world().broadcast("sensitivity estimate", increases)
        names = self.space.profile.names
        if not told:
            return None
        return SensitivityTable(names=names, increases=np.frombuffer(told).reshape(len(names), -1))

    def _super_batch(self) -> SuperBatch:
        return SuperBatch(
            self.batches,
            size=self.config.super_batch_size,
            kind=self.config.super_batch,
            seed=self._seed("super-batch"),
            device=self._device,
        )

    def _search(
        self, study: StepStudy | GuidedStudy, evaluator: Evaluator, super_batch: SuperBatch
    ) -> tuple[SampledCandidates, list[Generation], str]:
        samples, generations = SampledCandidates(), list[Generation]()
        stopped = None
        while stopped is None:
            began = time.perf_counter()
            replayed = None if self.log is None else self.log.candidates(len(generations) + 1)
            trials, bits = study.ask(self.population_size, replayed)
            losses = self._losses(evaluator, super_batch, len(generations) + 1, bits)
            self._tell_evaluator(evaluator)
            generations.append(study.tell(trials, bits, losses))
            samples.add(generations[-1])
            self._report(study, generations, time.perf_counter() - began)
            super_batch.advance()
            stopped = self._stop_reason(study, len(generations))
        return samples, generations, stopped

    def _losses(self, evaluator: Evaluator, super_batch: SuperBatch, number: int, bits: Bits) -> Vector:
        known = None if self.log is None else self.log.known(number, bits)
        if known is not None:
            return known
        with RandomStream(self._seed("evaluation", number)).active():
            losses = evaluator.losses(bits, super_batch)
        losses = np.where(np.isfinite(losses), losses, math.nan)
        if np.isnan(losses).all():
            for minibatch in super_batch.minibatches:
                require_samples(minibatch.data, "A batch of `search_batches` (or `train_batches`)")
        if self.log is not None:
            self.log.append(number, bits, losses, self.constraints.costs(bits))
        return losses

    def _plan(self, super_batch: SuperBatch) -> Planned:
        return Planned(
            candidates=self.config.evaluations_per_step,
            steps=self.config.rounds * self.config.steps_per_round,
            super_batch=super_batch,
        )

    def _tell_evaluator(self, evaluator: Evaluator) -> None:
        account = account_of(evaluator, self.config.evaluator)
        if account != self._told:
            notify(_logger, f"Candidates are evaluated by {account}.")
        self._told = account

    def _stop_reason(self, study: StepStudy | GuidedStudy, generations: int) -> str | None:
        if (generations + 1) * self.population_size > self.config.evaluations_per_step:
            return "evaluations"
        return study.stop_reason()

    def _choose(
        self,
        study: StepStudy | GuidedStudy,
        evaluator: Evaluator,
        samples: SampledCandidates,
        incumbent: Bits,
        super_batch: SuperBatch,
    ) -> list[Candidate]:
        candidates = candidates_to_choose_from(
            samples,
            self.constraints,
            incumbent=incumbent,
            mean=study.mean_bits(),
            count=self.config.reevaluate_best,
            fill=self._filler(super_batch),
        )
        by_loss = reevaluated(
            candidates,
            evaluator,
            self.batches,
            limit=self.config.reevaluation_size,
            chunk=self.config.super_batch_size,
            seed=self._seed("reevaluation"),
            device=self._device,
        )
        return by_loss if self.metric is None else by_metric(by_loss, self._metric_of)

    def _filler(self, super_batch: SuperBatch) -> Callable[[Bits], Bits]:
        allocator = Allocator(self.constraints)
        found: list[SensitivityTable | None] = []

        def fill(bits: Bits) -> Bits:
            if allocator.is_full(bits):
                return bits
            if not found:  # not that of the first generation, which a resumed step need not have
                found.append(self._agreed(self._sensitivity(super_batch)))
            return allocator.fill(bits, None if found[0] is None else found[0].increases)

        return fill

    def _metric_of(self, candidate: Candidate) -> float:
        assert self.metric is not None
        seed = self._seed("statistics")
        allocation = self.space.allocation(np.array(candidate.bits, dtype=np.int64))
        batches = (
            () if self.config.batchnorm == "running" else one_pass(self.batches, seed, _STATISTICS_BATCHES)
        )
        with self.model.using(allocation), RandomStream(seed).active():
            drawn = (moved(batch, self._device) for batch in batches)
            with own_statistics(self.model, self.loss, drawn):
                return self.metric()

    def _report(self, study: StepStudy | GuidedStudy, generations: list[Generation], seconds: float) -> None:
        last = generations[-1]
        finite = last.values[np.isfinite(last.values)]
        feasible = last.losses[last.feasible & np.isfinite(last.losses)]
        record = GenerationRecord(
            seconds=seconds,
            round=self.round,
            step=self.step,
            generation=len(generations),
            evaluations=sum(len(generation.bits) for generation in generations),
            best_value=float(finite.min(initial=math.inf)) if len(finite) else math.nan,
            mean_value=float(finite.mean()) if len(finite) else math.nan,
            median_value=float(np.median(finite)) if len(finite) else math.nan,
            best_feasible_loss=float(feasible.min()) if len(feasible) else math.nan,
            feasible=int(last.feasible.sum()),
            non_finite=int((~np.isfinite(last.losses)).sum()),
            step_size=study.distribution().step_size,
        )
        if record.non_finite:
            _logger.warning(
                "Round %d, step %d, generation %d: %d of %d losses are not finite.",
                *(self.round, self.step, record.generation, record.non_finite, len(last.losses)),
            )
        if self.on_generation is not None:
            self.on_generation(record)

    def _nothing_to_search(self, incumbent: Bits) -> StepOutcome:
        bits = self.constraints.repair(incumbent)
        record = StepRecord(
            round=self.round,
            step=self.step,
            study=self.study_name,
            evaluations=0,
            distinct=0,
            generations=0,
            feasible_share=1.0,
            stopped="every width is fixed",
            allocation=dict(self.space.allocation(bits)),
            costs=cost_rows(self.constraints, bits),
        )
        return StepOutcome(bits=bits, record=record, distribution=None)


def cost_rows(constraints: Constraints, bits: Bits) -> CostRows:
    """The use of every budget as plain data."""
    return tuple(asdict(row) for row in constraints.report(bits))


def _log_step(record: StepRecord) -> None:
    chosen = record.candidates[0]
    _logger.info(
        "Round %d, step %d: %d evaluations of %d candidates, %.0f %% feasible, stopped by %s; chose (%s) "
        "the one with loss %.5g (%.5g on super-batches).",
        *(record.round, record.step, record.evaluations, record.distinct, 100 * record.feasible_share),
        *(record.stopped, chosen.source, chosen.reevaluated_loss, chosen.super_batch_loss),
    )
