"""A run in several processes: the first one keeps its files, the others follow it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gfb_brevitas.distributed import World
from gfb_brevitas.search.checkpoint import BestState, Checkpoint, content_digest, model_state
from gfb_brevitas.search.generation_log import GenerationLog
from gfb_brevitas.search.history import Record
from gfb_brevitas.sensitivity import SensitivityTable
from gfb_brevitas.space import Bits, Vector


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What the first process tells the others when a run starts or goes on.

    Attributes:
        run_id: Id of the run.
        path: The run folder, if there is one.
        checkpoint: What the run goes on from; ``None`` for a new one.
        records: The records so far.
    """

    run_id: str
    path: Path | None
    checkpoint: Checkpoint | None
    records: Sequence[Record]


def told_beginning(world: World, beginning: Beginning) -> None:
    """Tell the other processes how the run begins; called by the first process."""
    if world.size > 1:
        world.broadcast("beginning of the run", _packed(beginning))


def heard_beginning(world: World) -> Beginning:
    """How the run begins; called by all processes but the first."""
    return _unpacked(world.broadcast("beginning of the run", b""))


def take_over_tensors(world: World, model: nn.Module, purpose: str) -> None:
    """Give a model's parameters and buffers the values that they have in the first process."""
    # Not the state dict: Brevitas leaves out of it what has not been collected from data yet.
    world.broadcast_tensors(purpose, [*model.parameters(), *model.buffers()])


def require_same_weights(world: World, model: nn.Module, place: str) -> None:
    """Check that training has kept a model the same in all processes.

    Raises:
        DistributedError: If it has not.
    """
    if world.size > 1:
        digest = content_digest(dict(model_state(model))).encode()
        advice = (
            "They drift apart where machines compute differently, or where a loss, optimizer or layer does "
            "something else in every process. Use equal machines and versions, and one seed."
        )
        world.require_equal(f"weights {place}", digest, advice)


class SharedGenerationLog(GenerationLog):
    """The log of a gradient-free step, which is in the first process only.

    Args:
        world: The processes.
        log: The log in the first process; ``None`` in the others.
    """

    def __init__(self, world: World, log: GenerationLog | None) -> None:
        self._world, self._log = world, log

    def known(self, generation: int, bits: Bits) -> Vector | None:
        """See :meth:`GenerationLog.known`."""
        losses = None if self._log is None else self._log.known(generation, bits)
        told = self._world.broadcast("losses in the log", b"" if losses is None else losses.tobytes())
        return np.frombuffer(told, dtype=np.float64).copy() if told else None

    def candidates(self, generation: int) -> Bits | None:
        """See :meth:`GenerationLog.candidates`."""
        bits = None if self._log is None else self._log.candidates(generation)
        packed = b"" if bits is None else json.dumps(bits.tolist()).encode()
        told = self._world.broadcast("candidates in the log", packed)
        return np.array(json.loads(told), dtype=np.int64) if told else None

    def append(self, generation: int, bits: Bits, losses: Vector, costs: Vector) -> None:
        """See :meth:`GenerationLog.append`."""
        if self._log is not None:
            self._log.append(generation, bits, losses, costs)

    def keep_sensitivity(self, table: SensitivityTable) -> None:
        """See :meth:`GenerationLog.keep_sensitivity`."""
        if self._log is not None:
            self._log.keep_sensitivity(table)


def _packed(beginning: Beginning) -> bytes:
    document: dict[str, Any] = {
        "run": beginning.run_id,
        "path": None if beginning.path is None else str(beginning.path),
        "records": json.dumps([record.to_dict() for record in beginning.records]),
        "checkpoint": None,
    }
    if beginning.checkpoint is not None:
        best = beginning.checkpoint.best
        content = {**vars(beginning.checkpoint), "best": None if best is None else vars(best)}
        document["checkpoint"] = content
    stream = io.BytesIO()
    torch.save(document, stream)
    return stream.getvalue()


def _unpacked(data: bytes) -> Beginning:
    document = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    content = document["checkpoint"]
    checkpoint = None
    if content is not None:
        best = content.pop("best")
        checkpoint = Checkpoint(**content, best=None if best is None else BestState(**best))
    return Beginning(
        run_id=document["run"],
        path=None if document["path"] is None else Path(document["path"]),
        checkpoint=checkpoint,
        records=[Record.from_dict(record) for record in json.loads(document["records"])],
    )
