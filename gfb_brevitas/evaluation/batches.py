"""Batches of any kind: opening them, checking them, moving them to a device.

A batch is whatever the user's loss function takes. A set of batches is anything that can be iterated
over *again*: a DataLoader, a list, or a function without arguments that returns a fresh iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from gfb_brevitas.errors import BatchError, ConfigurationError, EmptyDataError, GfbError
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed
from gfb_brevitas.users_frames import failed_in

Batch = Any
Batches = Iterable[Any] | Callable[[], Iterable[Any]]
LossFunction = Callable[[nn.Module, Any], torch.Tensor]


def require_replayable(batches: Batches, name: str) -> None:
    """Check that ``batches`` can be iterated over more than once.

    Args:
        batches: What the user passed.
        name: The argument's name, for the message.

    Raises:
        ConfigurationError: If it is a one-shot iterator (a generator), or not iterable.
    """
    if isinstance(batches, Iterator):
        raise ConfigurationError(
            f"`{name}` must be iterable more than once, since steps and epochs are repeated and resumed; "
            f"got the one-shot iterator {type(batches).__name__!r}. Pass a list, a DataLoader, or the "
            "generator function itself instead of its result."
        )
    if not isinstance(batches, Iterable) and not callable(batches):
        raise ConfigurationError(
            f"`{name}` must be an iterable of batches or a function that returns one; "
            f"got {type(batches).__name__!r}."
        )


def require_batches(batches: Batches, name: str, seed: int = 0) -> None:
    """Check that ``batches`` is replayable and yields at least one batch.

    Raises:
        ConfigurationError: If it is not replayable.
        EmptyDataError: If it yields nothing.
    """
    require_replayable(batches, name)
    stream = RandomStream(seed)
    with stream.active():
        for _ in opened(batches, seed):
            return
    raise EmptyDataError(f"`{name}` must yield at least one batch; it yielded none.")


def opened(batches: Batches, seed: int) -> Iterator[Batch]:
    """Start a pass over ``batches``.

    Generators that belong to a DataLoader or its sampler are seeded, so that the pass does not depend
    on the passes before it.
    """
    for owner in (batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    return iter(batches if isinstance(batches, Iterable) else batches())


def one_pass(
    batches: Batches, seed: int, limit: int | None = None, *, name: str = "batches"
) -> Iterator[Batch]:
    """The batches of one pass, at most ``limit``; repeats for equal seeds, whatever runs in between.

    Raises:
        BatchError: If the data fails to give one; ``name`` is what the data is called.
    """
    stream = RandomStream(seed)
    with stream.active():
        iterator = opened(batches, seed)
    drawn = 0
    while limit is None or drawn < limit:
        try:
            with stream.active(), _Loading(name, drawn + 1):
                batch = next(iterator)
        except StopIteration:
            return
        drawn += 1
        yield batch


class _Loading:
    """Tells an error of the data with the number of the batch; a pass that ends is none."""

    def __init__(self, name: str, number: int) -> None:
        self._what = f"Batch {number} of `{name}`"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        passes = GfbError | StopIteration | torch.OutOfMemoryError
        if isinstance(error, Exception) and not isinstance(error, passes):
            message = f"{self._what} could not be loaded: {failed_in(error).rstrip()}"
            raise BatchError(message) from error


class BatchStream(Iterator[Batch]):
    """An endless stream over a finite set of batches, repeatable and undisturbed by other draws.

    Args:
        batches: The set of batches.
        seed: Where the stream's random generators start.
        name: What the batches are called in messages.

    Raises:
        EmptyDataError: From ``next``, if a pass yields nothing.
    """

    def __init__(self, batches: Batches, *, seed: int, name: str = "batches") -> None:
        require_replayable(batches, name)
        self.passes = 0
        self._batches, self._name, self._seed = batches, name, seed
        self._randomness = RandomStream(seed)
        self._iterator: Iterator[Batch] = iter(())
        self._drawn = 0

    def __next__(self) -> Batch:
        self._drawn += 1
        with self._randomness.active():
            try:
                with _Loading(self._name, self._drawn):
                    return next(self._iterator)
            except StopIteration:
                pass
            self._iterator = opened(self._batches, derive_seed(self._seed, self.passes))
            self.passes += 1
            self._drawn = 1
            try:
                with _Loading(self._name, self._drawn):
                    return next(self._iterator)
            except StopIteration:
                raise EmptyDataError(
                    f"`{self._name}` must yield at least one batch; pass {self.passes} over it yielded none."
                ) from None


def moved(batch: Batch, device: torch.device | None) -> Batch:
    """A batch with its tensors on ``device``: through tuples, lists, mappings and dataclasses.

    Anything else that has a ``to`` method (graph batches, token batches) is moved by it; the rest
    stays as it is. ``None`` moves nothing.
    """
    if device is None:
        return batch
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(item, device) for item in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(item, device) for item in batch)
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(item, device) for key, item in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        parts = {f.name: moved(getattr(batch, f.name), device) for f in fields(batch) if f.init}
        return replace(batch, **parts)
    return batch


def device_of(model: nn.Module) -> torch.device | None:
    """The device of a model's first parameter or buffer; ``None`` for a model without any."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return None
