"""A run as its folder holds it: read only, without the model, while it runs or after."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import AllocationError, CheckpointError
from gfb_brevitas.files import unsealed
from gfb_brevitas.profile import FloatLayer, QuantizerInfo, RefusedQuantizer, UnknownOperator
from gfb_brevitas.search.formats import FORMAT, VERSION, require_format, unreadable
from gfb_brevitas.search.history import History, records_of
from gfb_brevitas.search.json_lines import JsonLinesFile
from gfb_brevitas.search.layer_costs import RecordedLayerCosts, read_layer_costs
from gfb_brevitas.search.run_profile import PROFILE_FORMAT, PROFILE_VERSION
from gfb_brevitas.search.run_status import RunStatus, read_status
from gfb_brevitas.space import Bits, Vector

_Read = TypeVar("_Read")
_WARNING = re.compile(r"^[\d-]+ [\d:,]+ (?:WARNING|ERROR) [\w.]+: (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class RecordedBudget:
    """A budget of a run.

    Attributes:
        name: Name of its cost.
        unit: The cost's unit.
        limit: The most that the cost may be.
        at_uniform_bits: What the cost is at uniform widths, by width; a quantizer that cannot take the
            width counts at the nearest one that it can.
    """

    name: str
    unit: str
    limit: float
    at_uniform_bits: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedCandidates:
    """All candidates of one gradient-free step, in the order of their evaluation.

    Attributes:
        round: Round, from 1.
        step: Step of the round, from 1.
        generation: Shape ``(N,)``, each one's generation, from 1.
        bits: Shape ``(N, quantizers)``.
        losses: Shape ``(N,)``; NaN where not finite.
        costs: Shape ``(N, budgets)``.
        sensitivity: Expected increase of the loss, shape ``(quantizers, largest width + 1)``, column b for b
            bits, as :class:`gfb_brevitas.sensitivity.SensitivityTable`; ``None`` where none was made.
    """

    round: int
    step: int
    generation: NDArray[np.int64]
    bits: Bits
    losses: Vector
    costs: Vector
    sensitivity: Vector | None


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run as its folder holds it.

    Example:
        >>> run = RecordedRun.load("runs/digits")  # doctest: +SKIP
        >>> run.history.rounds[-1].metric, run.allocation  # doctest: +SKIP

    Attributes:
        path: The folder.
        run_id: The id that the run got when it began.
        configuration: Everything that makes the run what it is, as plain data.
        versions: Versions of the packages that it began with, by name.
        quantizers: The searchable quantizers in the order of the forward pass, with the ranges and ties
            of the search.
        refused: The quantizers that were not searched.
        float_layers: The layers that stay in floating point; empty for runs of older versions.
        unknown_operators: Operators of which nobody knew what they multiply.
        budgets: The budgets.
        history: All records so far.
        summary: The result in numbers; ``None`` until the run has ended.
        allocation: The final allocation; ``None`` until the run has ended.
        clipping: Learned clipping values by quantizer and width, the mean where there is one per channel;
            ``None`` until the run has ended.
        layer_costs: What each layer takes of the budgets; ``None`` until the run has ended, and for one that
            ended when this was not recorded yet.
        status: What had become of it when it was read: whether it runs, ended, failed (and of what).
    """

    path: Path
    run_id: str
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]
    quantizers: tuple[QuantizerInfo, ...]
    refused: tuple[RefusedQuantizer, ...]
    float_layers: tuple[FloatLayer, ...]
    budgets: tuple[RecordedBudget, ...]
    history: History
    summary: Mapping[str, Any] | None
    allocation: BitAllocation | None
    clipping: Mapping[str, Mapping[int, float]] | None
    status: RunStatus
    layer_costs: RecordedLayerCosts | None = None
    unknown_operators: tuple[UnknownOperator, ...] = ()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> RecordedRun:
        """Read the folder of a run; nothing in it changes.

        Raises:
            CheckpointError: If it holds no run, or naming the file that is damaged.
        """
        path = Path(folder)
        config = path / "config.json"
        if not config.is_file():
            seeds = ", ".join(sorted(found.parent.name for found in path.glob("seed-*/config.json")))
            which = f"of several seeds: give {seeds}" if seeds else "(`run_folder`)"
            raise CheckpointError(f"{str(path)!r} holds no run. Give the folder of one {which}.")
        status = read_status(path)
        run_id, configuration, versions = _read(config, _beginning)
        quantizers, refused, floats, unknown, budgets = _read(path / "profile.json", _profile)
        ended = status.is_over
        summary = _read(path / "summary.json", _summary) if ended else None
        layer_costs = path / "layer_costs.json"
        return cls(
            path=path,
            run_id=run_id,
            configuration=configuration,
            versions=versions,
            quantizers=quantizers,
            refused=refused,
            float_layers=floats,
            unknown_operators=unknown,
            budgets=budgets,
            history=_history(path / "history.jsonl", summary),
            summary=summary,
            allocation=_allocation(path / "allocation.json") if ended else None,
            clipping=_read(path / "clipping.json", _clipping) if ended else None,
            layer_costs=_read(layer_costs, read_layer_costs) if ended and layer_costs.exists() else None,
            status=status,
        )

    @cached_property
    def candidates(self) -> tuple[EvaluatedCandidates, ...]:
        """All candidates that were evaluated, by gradient-free step.

        Raises:
            CheckpointError: If a file of them is damaged.
        """
        files = sorted((self.path / "generations").glob("round-*/step-*.jsonl"))
        # One that holds only its head was begun and not written to.
        read = ((file, self._lines(file)) for file in files)
        steps = [self._step(file, lines) for file, lines in read if len(lines) > 1]
        return tuple(sorted(steps, key=lambda step: (step.round, step.step)))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the log warns of, each text once; empty where there is no log."""
        try:
            log = (self.path / "run.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ()
        return tuple(dict.fromkeys(_WARNING.findall(log)))

    def _lines(self, file: Path) -> list[dict[str, Any]]:
        lines = JsonLinesFile(file).read_whole(ended=self.summary is not None)
        if not lines and self.summary is not None:
            raise CheckpointError(f"{str(file)!r} is damaged: it is empty.")
        generations = sum("generation" in line for line in lines)
        for step in self.history.steps:
            own = lines and (lines[0].get("round"), lines[0].get("step")) == (step.round, step.step)
            if own and generations < step.generations:
                raise CheckpointError(
                    f"{str(file)!r} is damaged: it holds {generations} of {step.generations} generations."
                )
        return lines

    def _step(self, file: Path, lines: list[dict[str, Any]]) -> EvaluatedCandidates:
        try:
            generations = [line for line in lines[1:] if "generation" in line]
            sizes = [len(line["losses"]) for line in generations]
            tables = [_floats(line["sensitivity"]) for line in lines[1:] if "sensitivity" in line]
            return EvaluatedCandidates(
                round=int(lines[0]["round"]),
                step=int(lines[0]["step"]),
                generation=np.repeat([int(line["generation"]) for line in generations], sizes),
                bits=np.array([row for line in generations for row in line["bits"]], dtype=np.int64).reshape(
                    sum(sizes), len(self.quantizers)
                ),
                losses=_floats([loss for line in generations for loss in line["losses"]]),
                costs=_floats([row for line in generations for row in line["costs"]]).reshape(
                    sum(sizes), len(self.budgets)
                ),
                sensitivity=tables[0] if tables else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(file, error) from error


def _read(path: Path, understood: Callable[[Any], _Read]) -> _Read:
    try:
        return understood(unsealed(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unreadable(path, error) from error


def _history(path: Path, summary: Mapping[str, Any] | None) -> History:
    history = records_of(path, JsonLinesFile(path).read_whole(ended=summary is not None))
    for name in ("rounds", "steps", "epochs"):
        found, told = len(getattr(history, name)), (summary or {}).get(name, 0)
        if found < told:
            raise CheckpointError(
                f"{str(path)!r} is damaged: it holds {found} of the {told} {name} of the summary."
            )
    return history


def _beginning(document: Any) -> tuple[str, Mapping[str, Any], Mapping[str, str]]:
    require_format(document, FORMAT, VERSION)
    return str(document["run"]), _mapping(document["configuration"]), _mapping(document["versions"])


def _profile(
    document: Any,
) -> tuple[
    tuple[QuantizerInfo, ...],
    tuple[RefusedQuantizer, ...],
    tuple[FloatLayer, ...],
    tuple[UnknownOperator, ...],
    tuple[RecordedBudget, ...],
]:
    require_format(document, PROFILE_FORMAT, PROFILE_VERSION)
    known = {field.name for field in fields(QuantizerInfo)}
    quantizers = tuple(
        QuantizerInfo(
            **{name: value for name, value in row.items() if name in known} | {"feeds": tuple(row["feeds"])}
        )
        for row in document["quantizers"]
    )
    budgets = tuple(
        RecordedBudget(
            name=str(row["name"]),
            unit=str(row["unit"]),
            limit=float(row["limit"]),
            at_uniform_bits={int(bits): _float(cost) for bits, cost in row["at_uniform_bits"].items()},
        )
        for row in document["budgets"]
    )
    refused = tuple(RefusedQuantizer(**row) for row in document["refused"])
    floats = tuple(FloatLayer(**row) for row in document.get("float_layers", ()))
    unknown = tuple(
        UnknownOperator(**row | {"quantizers": tuple(row["quantizers"])})
        for row in document.get("unknown_operators", ())
    )
    return quantizers, refused, floats, unknown, budgets


def _summary(document: Any) -> Mapping[str, Any]:
    require_format(document, f"{FORMAT}.summary", VERSION)
    return _mapping(document)


def _clipping(document: Any) -> Mapping[str, Mapping[int, float]]:
    return {name: {int(bits): float(value) for bits, value in row.items()} for name, row in document.items()}


def _allocation(path: Path) -> BitAllocation:
    try:
        return BitAllocation.load(path)
    except AllocationError as error:
        raise CheckpointError(str(error)) from error


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"an object is expected, not {value!r}")
    return value


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _floats(values: Any) -> Vector:
    return np.array(values, dtype=np.float64)  # None becomes NaN
