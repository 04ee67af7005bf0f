"""What is wrong with a batch that a model cannot work on, told so that it is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from gfb_brevitas.errors import EmptyDataError

_SHOWN = 6
_ONE_SAMPLE = "Expected more than 1 value per channel"


def described_batch(batch: Any) -> str:
    """What a batch consists of, e.g. ``(Tensor (32, 8) float32, Tensor (32,) int64)``."""
    if isinstance(batch, Tensor):
        return f"Tensor {tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, tuple | list):
        return f"({_listed([described_batch(item) for item in batch])})"
    if isinstance(batch, Mapping):
        return f"{{{_listed([f'{key!r}: {described_batch(item)}' for key, item in batch.items()])}}}"
    return type(batch).__name__


def advice_on(error: Exception) -> str:
    """What to do about an error on a batch that others worked on."""
    if _ONE_SAMPLE in str(error):
        return (
            "BatchNorm cannot take statistics of one sample: leave out the last, smaller batch "
            "(DataLoader(..., drop_last=True)), or choose another batch size."
        )
    return "Check this batch: its shapes and types, and which parts of it the loss passes to the model."


def require_samples(batch: Any, what: str) -> None:
    """Check that a batch is not empty, as far as its first tensor tells.

    Raises:
        EmptyDataError: If it is; ``what`` says which batch it is.
    """
    first = next(_tensors(batch), None)
    if first is not None and first.dim() and not len(first):
        raise EmptyDataError(
            f"{what} is empty, it holds no samples: {described_batch(batch)}. The mean loss of no samples is "
            "NaN: leave such batches out."
        )


def fault_of_data(batch: Any) -> str | None:
    """Why a loss on this batch cannot be finite, whatever the weights; ``None`` if nothing tells."""
    for tensor in _tensors(batch):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return (
                f"the data itself holds NaN or infinite values: {described_batch(batch)}. Mend the data, or "
                "leave these samples out."
            )
    return None


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, tuple | list | Mapping):
        for item in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(item)


def _listed(items: list[str]) -> str:
    more = ", ..." if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
