"""An evaluator whose work is shared out to the processes of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gfb_brevitas.distributed.batches import batch_digest
from gfb_brevitas.distributed.world import World, current_world
from gfb_brevitas.evaluation.evaluator import Evaluator
from gfb_brevitas.evaluation.super_batch import SuperBatch
from gfb_brevitas.space import Bits, Vector


def shared(evaluator: Evaluator) -> Evaluator:
    """The evaluator itself where there is one process; else one that shares its work out."""
    world = current_world()
    return evaluator if world.size == 1 else SharedEvaluator(evaluator, world)


class SharedEvaluator:
    """Has every process evaluate its share of the candidates; all of them get all losses.

    The loss of a candidate must not depend on which other candidates are evaluated with it, nor on random
    draws but those that start from the seed of a minibatch: what
    :class:`~gfb_brevitas.evaluation.Evaluator` asks for anyway. Then the losses are those of one process,
    bit for bit.

    Args:
        evaluator: Computes the losses of a share.
        world: The processes.
    """

    def __init__(self, evaluator: Evaluator, world: World) -> None:
        self.evaluator, self.world = evaluator, world
        self._deal = Deal(world.size)
        self._data_checked = False

    def __getattr__(self, name: str) -> Any:
        """What the evaluator of the share says about itself."""
        return getattr(self.evaluator, name)

    def losses(self, bits: Bits, super_batch: SuperBatch) -> Vector:
        """See :meth:`gfb_brevitas.evaluation.Evaluator.losses`; all processes call it with equal arguments.

        Raises:
            GfbError: If the evaluation fails in any process: the same error in all.
            DistributedError: If the processes have different candidates or data.
        """
        rows, place = np.unique(np.ascontiguousarray(bits, dtype=np.int64), axis=0, return_inverse=True)
        self._check(rows, super_batch)
        own = self._deal.owners(rows, super_batch.version) == self.world.rank
        losses = np.zeros(len(rows), dtype=np.float64)
        if own.any():
            losses[own] = self.evaluator.losses(rows[own], super_batch)
        total = self.world.sum("losses of candidates", torch.from_numpy(losses))
        every: Vector = total.numpy()[place.reshape(-1)]
        return every

    def _check(self, rows: Bits, super_batch: SuperBatch) -> None:
        if not self._data_checked:
            content = b"".join(batch_digest(batch) for batch in super_batch)
            advice = "Draw search data with the global random generators or from a fixed order."
            self.world.require_equal("minibatches of a super-batch", content, advice)
            self._data_checked = True
        advice = "Use the same versions of libraries on all machines."
        self.world.require_equal("candidates", rows.tobytes(), advice)


class Deal:
    """Decides which process evaluates which candidate.

    A candidate that comes back goes to the process that knows its losses on most of the minibatches; new
    ones are dealt so that every process has as many minibatches to compute. Neighbours in the
    order of rows stay together, since they share the widths of the first layers.

    Args:
        size: Number of processes.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[bytes, tuple[int, frozenset[int]]] = {}

    def owners(self, rows: Bits, version: tuple[int, ...]) -> NDArray[np.int64]:
        """The process of every row.

        Args:
            rows: Shape ``(P, quantizers)``, different candidates in lexicographic order.
            version: The super-batch's version.

        Returns:
            Shape ``(P,)``.
        """
        minibatches = frozenset(version)
        self._forget(minibatches)
        known = [self._known.get(row.tobytes(), (-1, frozenset())) for row in rows]
        owners = np.array([owner for owner, _ in known], dtype=np.int64)
        loads = [0] * self._size
        for owner, seen in known:
            if owner >= 0:
                loads[owner] += len(minibatches - seen)
        owners[owners < 0] = self._dealt(int((owners < 0).sum()), len(minibatches), loads)
        for row, owner in zip(rows, owners.tolist(), strict=True):
            self._known[row.tobytes()] = (owner, minibatches)
        return owners

    def _dealt(self, count: int, cost: int, loads: list[int]) -> NDArray[np.int64]:
        counts = [0] * self._size
        for _ in range(count):
            lightest = loads.index(min(loads))
            counts[lightest] += 1
            loads[lightest] += cost
        return np.repeat(np.arange(self._size, dtype=np.int64), counts)

    def _forget(self, minibatches: frozenset[int]) -> None:
        kept = {row: (owner, seen & minibatches) for row, (owner, seen) in self._known.items()}
        self._known = {row: (owner, seen) for row, (owner, seen) in kept.items() if seen}
