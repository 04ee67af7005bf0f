"""What happened in a run, as records: plain data, one JSON object each.

A number that is NaN or infinite is ``null`` in JSON and NaN again when read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from gfb_brevitas.errors import CheckpointError

CandidateSource = Literal["sampled", "incumbent", "mean", "repaired", "filled"]
CostRows = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base class of all records.

    Attributes:
        seconds: Wall time that what is recorded took; the only field that differs between a run that
            was interrupted and one that was not.
    """

    kind: ClassVar[str] = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for JSON, with its ``"kind"``."""
        document: dict[str, Any] = json_ready({"kind": self.kind, **asdict(self)})
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Record:
        """Read what :meth:`to_dict` made.

        Raises:
            CheckpointError: If it is not the data of a record.
        """
        record_class = _RECORDS.get(str(document.get("kind")))
        if record_class is None:
            raise CheckpointError(f"Not a record of a run's history: {dict(document)!r}.")
        values = {name: value for name, value in document.items() if name != "kind"}
        try:
            return record_class(**record_class._revived(values))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"A record of kind {record_class.kind!r} is damaged: {error}.") from error

    @classmethod
    def _revived(cls, values: dict[str, Any]) -> dict[str, Any]:
        floats = {f.name for f in fields(cls) if f.type == "float"}
        revived: dict[str, Any] = {
            name: math.nan if value is None and name in floats else value for name, value in values.items()
        }
        if "costs" in revived:
            revived["costs"] = tuple(revived["costs"])
        return revived


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord(Record):
    """Clipping parameters were started from data.

    Attributes:
        batches: Minibatches that were looked at.
        allocation: The initial allocation, bits by quantizer name.
        costs: The costs of that allocation.
    """

    kind: ClassVar[str] = "calibration"
    batches: int
    allocation: Mapping[str, int]
    costs: CostRows = ()


@dataclass(frozen=True, kw_only=True)
class GenerationRecord(Record):
    """One generation of CMA-ES.

    Attributes:
        round: Round, from 1.
        step: Gradient-free step of the round, from 1.
        generation: Generation of the step, from 1.
        evaluations: Objective evaluations of the step so far.
        best_value: Smallest objective value (loss + penalty) of the generation.
        mean_value: Mean of its finite objective values.
        median_value: Median of its finite objective values.
        best_feasible_loss: Smallest loss among its feasible candidates; NaN if there are none.
        feasible: Number of its feasible candidates.
        non_finite: Number of its candidates whose loss was NaN or infinite.
        step_size: Step size of CMA-ES after the generation, in log2 bits.
    """

    kind: ClassVar[str] = "generation"
    round: int
    step: int
    generation: int
    evaluations: int
    best_value: float
    mean_value: float
    median_value: float
    best_feasible_loss: float
    feasible: int
    non_finite: int
    step_size: float


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An allocation that a gradient-free step chose from.

    Attributes:
        bits: Bit widths, in the order of the profile.
        source: ``"sampled"`` by CMA-ES, the ``"incumbent"`` of the step, the ``"mean"`` of the final
            distribution, ``"repaired"`` from an infeasible one, or ``"filled"`` up with bits that the budgets
            had room for.
        super_batch_loss: Mean of its losses on super-batches; NaN if it was not sampled.
        reevaluated_loss: Its loss on the larger data. The difference to ``super_batch_loss`` is how
            optimistic the search was.
        metric: The validation metric with its widths, if candidates are chosen by it; NaN if they are not.
    """

    bits: tuple[int, ...]
    source: CandidateSource
    super_batch_loss: float
    reevaluated_loss: float
    metric: float = math.nan

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        numbers: dict[str, Any] = {n: math.nan if v is None else v for n, v in values.items()}
        return cls(**{**numbers, "bits": tuple(values["bits"])})


@dataclass(frozen=True, kw_only=True)
class StepRecord(Record):
    """One gradient-free step.

    Attributes:
        round: Round, from 1.
        step: Gradient-free step of the round, from 1.
        study: Name of the step's Optuna study.
        evaluations: Objective evaluations.
        distinct: Different candidates among them.
        generations: Generations.
        feasible_share: Share of the evaluations that were feasible.
        stopped: Why the step ended.
        allocation: The chosen allocation, bits by quantizer name.
        costs: Its costs.
        candidates: The re-evaluated candidates, best first; the first one was chosen.
        evaluator: What evaluated the candidates, in words, and why nothing faster; empty in runs of
            earlier releases.
    """

    kind: ClassVar[str] = "step"
    round: int
    step: int
    study: str
    evaluations: int
    distinct: int
    generations: int
    feasible_share: float
    stopped: str
    allocation: Mapping[str, int]
    costs: CostRows = ()
    candidates: tuple[Candidate, ...] = ()
    evaluator: str = ""

    @property
    def chosen(self) -> Candidate | None:
        """The chosen candidate: the first one. ``None`` when there was nothing to search."""
        return self.candidates[0] if self.candidates else None

    @classmethod
    def _revived(cls, values: dict[str, Any]) -> dict[str, Any]:
        revived = super()._revived(values)
        revived["candidates"] = tuple(Candidate._from_dict(c) for c in revived["candidates"])
        return revived


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Record):
    """One gradient-based epoch.

    Attributes:
        epoch: Epoch of the run, from 1, pretraining included.
        round: Round, from 1; 0 is the pretraining.
        train_loss: Mean training loss.
        learning_rate: Learning rate of the first parameter group; NaN where it is not known.
        metric: Validation metric after the epoch; higher is better.
        feasible: Whether the allocation satisfies the budgets.
        best: Whether the state after the epoch is the best so far.
        loss_before: Loss before any training, in the first epoch's record; NaN where it is not known.
        constant_loss: Loss of the same answer for every sample, in the first epoch's record.
        warning: What there is to say of the training loss; empty if it is as it should be.
    """

    kind: ClassVar[str] = "epoch"
    epoch: int
    round: int
    train_loss: float
    learning_rate: float
    metric: float
    feasible: bool
    best: bool
    loss_before: float = math.nan
    constant_loss: float = math.nan
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundRecord(Record):
    """The end of a round.

    Attributes:
        round: Round, from 1.
        metric: Validation metric; higher is better.
        best_metric: Best metric of a feasible state so far.
        allocation: The allocation, bits by quantizer name.
        costs: Its costs.
    """

    kind: ClassVar[str] = "round"
    round: int
    metric: float
    best_metric: float
    allocation: Mapping[str, int]
    costs: CostRows = ()


_RECORDS: dict[str, type[Record]] = {
    c.kind: c for c in (CalibrationRecord, GenerationRecord, StepRecord, EpochRecord, RoundRecord)
}

AnyRecord = TypeVar("AnyRecord", bound=Record)


@dataclass(frozen=True)
class History(Sequence[Record]):
    """All records of a run, in order.

    Example:
        >>> record = RoundRecord(round=1, metric=0.9, best_metric=0.9, allocation={})
        >>> History((record,)).rounds[0].metric
        0.9
    """

    records: tuple[Record, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, index: Any) -> Any:
        return self.records[index]

    def of(self, record_class: type[AnyRecord]) -> tuple[AnyRecord, ...]:
        """The records of one class."""
        return tuple(record for record in self.records if isinstance(record, record_class))

    @property
    def generations(self) -> tuple[GenerationRecord, ...]:
        """The generations."""
        return self.of(GenerationRecord)

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The gradient-free steps."""
        return self.of(StepRecord)

    @property
    def epochs(self) -> tuple[EpochRecord, ...]:
        """The gradient-based epochs."""
        return self.of(EpochRecord)

    @property
    def rounds(self) -> tuple[RoundRecord, ...]:
        """The rounds."""
        return self.of(RoundRecord)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What there was to say of the training."""
        return tuple(epoch.warning for epoch in self.epochs if epoch.warning)

    @property
    def seconds(self) -> float:
        """Wall time of everything recorded. Generations are part of their steps."""
        return sum(r.seconds for r in self.records if not isinstance(r, GenerationRecord))


def records_of(path: Path, documents: Iterable[Mapping[str, Any]]) -> History:
    """The records that the lines of a file hold.

    Raises:
        CheckpointError: Naming the file, if one of them is no record.
    """
    try:
        return History(tuple(Record.from_dict(document) for document in documents))
    except CheckpointError as error:
        raise CheckpointError(f"{str(path)!r} is damaged: {error}") from error


def json_ready(value: Any) -> Any:
    """Plain data that any JSON reader takes: no NaN or infinity, lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value
