"""Losses that need not be computed again."""

from __future__ import annotations

import numpy as np
from torch import nn

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation.super_batch import Minibatch, SuperBatch
from gfb_brevitas.space import Bits, Vector


class KnownLosses:
    """The losses of candidates on single minibatches, for as long as weights and minibatches stay.

    Equal candidates cost nothing, and in a moving super-batch a candidate that comes back costs one
    minibatch [ours]. This takes a loss that is repeatable in evaluation mode, its random
    draws starting from the minibatch's seed.

    Args:
        model: Its parameters and buffers are watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._losses: dict[bytes, dict[int, float]] = {}
        self._weights: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        """The number of losses that are kept."""
        return sum(map(len, self._losses.values()))

    def refresh(self, super_batch: SuperBatch) -> bool:
        """Forget what has become useless.

        Returns:
            Whether a parameter or buffer changed since the last call.
        """
        tensors = [*self._model.parameters(), *self._model.buffers()]
        weights = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        changed = weights != self._weights
        if changed:
            self._losses, self._weights = {}, weights
        held = set(super_batch.version)
        for row, kept in list(self._losses.items()):
            self._losses[row] = {serial: kept[serial] for serial in held & kept.keys()}
            if not self._losses[row]:
                del self._losses[row]
        return changed

    def clear(self) -> None:
        """Forget all losses."""
        self._losses = {}

    def missing(self, row: Bits, super_batch: SuperBatch) -> list[Minibatch]:
        """The minibatches, each once, that the loss of a candidate is not known on."""
        known = self._losses.get(row.tobytes(), {})
        return list({m.serial: m for m in super_batch.minibatches if m.serial not in known}.values())

    def add(self, row: Bits, minibatch: Minibatch, loss: float) -> None:
        """Keep a loss."""
        self._losses.setdefault(row.tobytes(), {})[minibatch.serial] = loss

    def means(self, rows: Bits, super_batch: SuperBatch) -> Vector:
        """Mean losses of candidates over all minibatches, which must be known; shape ``(P,)``."""
        with np.errstate(all="ignore"):
            return np.array(
                [np.mean([self._losses[row.tobytes()][s] for s in super_batch.version]) for row in rows],
                dtype=np.float64,
            )


def checked_rows(bits: Bits, quantizers: int) -> Bits:
    """Candidates as a contiguous matrix.

    Raises:
        ConfigurationError: If the shape is not ``(P, quantizers)``.
    """
    rows = np.ascontiguousarray(bits, dtype=np.int64)
    if rows.ndim != 2 or rows.shape[1] != quantizers:
        raise ConfigurationError(
            f"Candidates must have the shape (candidates, {quantizers}); got {rows.shape}."
        )
    return rows
