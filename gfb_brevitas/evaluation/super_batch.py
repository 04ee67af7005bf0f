"""Super-batches: the minibatches that one objective value is computed on.

Bodner et al., 2022, doi:10.3390/s22249772, Fig. 2: in a *moving* super-batch one minibatch is
replaced, first in first out, between generations of CMA-ES, so that consecutive super-batches
overlap strongly and candidates of consecutive generations stay comparable.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import torch

from gfb_brevitas.choices import SUPER_BATCH_KINDS
from gfb_brevitas.choices import SuperBatchKind as SuperBatchKind
from gfb_brevitas.errors import ConfigurationError, EmptyDataError
from gfb_brevitas.evaluation.batches import Batch, Batches, BatchStream, moved
from gfb_brevitas.evaluation.randomness import derive_seed

_logger = logging.getLogger(__name__)
_serials = count()


@dataclass(frozen=True)
class Minibatch:
    """One minibatch of a super-batch.

    Attributes:
        serial: A number that no other content of this process has; results can be kept under it.
        data: The batch, on the super-batch's device.
        source: The batch as it came from the data, kept so that a repeated one is recognised.
        seed: What a loss that draws random numbers draws them from, for every candidate alike.
    """

    serial: int
    data: Batch
    source: Batch
    seed: int = 0


class SuperBatch:
    """``size`` minibatches from an endless stream over the data.

    Example:
        >>> window = SuperBatch([10, 20, 30, 40], size=3, kind="moving", seed=0)
        >>> list(window)
        [10, 20, 30]
        >>> window.advance()
        >>> list(window)
        [20, 30, 40]

    Args:
        batches: The data: re-iterable, or a function that returns a fresh iterator. When it has
            fewer batches than ``size``, they repeat.
        size: Number of minibatches.
        kind: ``"moving"`` replaces the oldest minibatch in :meth:`advance`; ``"fixed"`` never changes;
            ``"single"`` holds one minibatch, whatever ``size``, and replaces it.
        seed: Start of the random stream that the batches are drawn under. Equal seeds give equal
            super-batches, whatever other code draws in between.
        device: Where the minibatches are moved when drawn; ``None`` leaves them.

    Raises:
        ConfigurationError: If the size is below 1, the kind unknown, or the data not replayable.
        EmptyDataError: If the data yields no batch.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        size: int,
        kind: SuperBatchKind = "moving",
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        if size < 1:
            raise ConfigurationError(f"A super-batch needs at least 1 minibatch; got size={size}.")
        if kind not in SUPER_BATCH_KINDS:
            raise ConfigurationError(
                f"The kind of a super-batch must be one of {', '.join(SUPER_BATCH_KINDS)}; got {kind!r}."
            )
        self.kind: SuperBatchKind = kind
        self._device, self._seed, self._drawn = device, seed, 0
        self._stream: Iterator[Batch] = BatchStream(batches, seed=seed, name="search_batches")
        self._window: deque[Minibatch] = deque()
        self._fill(1 if kind == "single" else size)

    @classmethod
    def of(
        cls, minibatches: Iterable[Batch], *, seed: int = 0, device: torch.device | None = None
    ) -> SuperBatch:
        """A fixed super-batch of exactly these minibatches.

        Raises:
            EmptyDataError: If there are none.
        """
        items = list(minibatches)
        if not items:
            raise EmptyDataError("A super-batch needs at least 1 minibatch; got none.")
        return cls(items, size=len(items), kind="fixed", seed=seed, device=device)

    def __len__(self) -> int:
        return len(self._window)

    def __iter__(self) -> Iterator[Batch]:
        return (minibatch.data for minibatch in self._window)

    @property
    def minibatches(self) -> tuple[Minibatch, ...]:
        """The current minibatches, oldest first; one object may occur more than once."""
        return tuple(self._window)

    @property
    def version(self) -> tuple[int, ...]:
        """Equal versions mean equal content; a changed super-batch has a new version."""
        return tuple(minibatch.serial for minibatch in self._window)

    def advance(self) -> None:
        """Go on to the next generation: replace the oldest minibatch, unless the kind is fixed."""
        if self.kind != "fixed":
            drawn = self._draw()
            self._window.popleft()
            self._window.append(drawn)

    def _fill(self, size: int) -> None:
        for _ in range(size):
            self._window.append(self._draw())
        if isinstance(self._stream, BatchStream) and self._stream.passes > 1:
            _logger.info(
                "The data has fewer batches than the super-batch (%d); some occur more than once.", size
            )

    def _draw(self) -> Minibatch:
        source = next(self._stream)
        for held in self._window:
            if held.source is source:
                return held
        self._drawn += 1
        seed = derive_seed(self._seed, "loss", self._drawn)
        return Minibatch(next(_serials), moved(source, self._device), source, seed)
