"""A process's part of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from gfb_brevitas.evaluation.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Part:
    """Samples ``start`` to ``stop`` of the ``total`` samples of a batch."""

    start: int
    stop: int
    total: int

    @property
    def weight(self) -> float:
        """The part's share of the batch."""
        return (self.stop - self.start) / self.total


def part_of(batch: Batch, rank: int, size: int) -> Part | None:
    """Which samples of a batch belong to process ``rank`` of ``size``.

    Returns:
        ``None`` where the batch cannot be divided: it holds something other than tensors and arrays, their
        first dimensions differ, or there are fewer samples than processes.
    """
    lengths = {len(leaf) if _is_array(leaf) and leaf.ndim else None for leaf in _leaves(batch)}
    if len(lengths) != 1:
        return None
    (total,) = lengths
    if total is None or total < size:
        return None
    return Part(start=total * rank // size, stop=total * (rank + 1) // size, total=total)


def divided(batch: Batch, part: Part) -> Batch:
    """The part of a batch that :func:`part_of` can divide; its tensors are views."""
    return _mapped(batch, lambda leaf: leaf[part.start : part.stop])


def batch_digest(batch: Batch) -> bytes:
    """A hash of the tensors and arrays of a batch; of nothing where it holds none."""
    digest = hashlib.sha256()
    for leaf in _leaves(batch):
        if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
            values = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        elif isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
            values = np.ascontiguousarray(leaf)
        else:
            continue
        digest.update(f"{leaf.dtype} {tuple(leaf.shape)};".encode())
        digest.update(values.tobytes())
    return digest.digest()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | np.ndarray)


def _leaves(batch: Batch) -> Iterator[Any]:
    if isinstance(batch, list | tuple):
        for item in batch:
            yield from _leaves(item)
    elif isinstance(batch, Mapping):
        for item in batch.values():
            yield from _leaves(item)
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from _leaves(getattr(batch, field.name))
    elif batch is not None:
        yield batch


def _mapped(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_mapped(item, change) for item in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_mapped(item, change) for item in batch)
    if isinstance(batch, Mapping):
        return {key: _mapped(item, change) for key, item in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        parts = {f.name: _mapped(getattr(batch, f.name), change) for f in fields(batch) if f.init}
        return replace(batch, **parts)
    return None if batch is None else change(batch)
