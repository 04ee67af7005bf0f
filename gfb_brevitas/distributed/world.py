"""The processes of a run, and what they say to each other.

A run is one program in every process (SPMD): all of them do the same in the same order, except where one
does its share of the work, and meet in the methods of a :class:`World`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from gfb_brevitas.errors import DistributedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class World:
    """A process on its own; the base class of a group of processes.

    Every method is to be called by all processes, in the same order and with the same ``purpose``, which
    appears in messages. With one process they cost nothing.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files, prints and calls callbacks."""
        return self.rank == 0

    def gather(self, purpose: str, message: bytes) -> list[bytes]:
        """The short messages of all processes, in the order of their ranks.

        Raises:
            GfbError: If another process has failed: the same error as there.
            DistributedError: If the processes do not do the same, or one has ended.
        """
        return [message]

    def sum(self, purpose: str, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes; any shape, a floating-point type, any device.

        All processes get the same bits.

        Raises:
            GfbError: As :meth:`gather`.
        """
        return tensor

    def broadcast(self, purpose: str, message: bytes) -> bytes:
        """The first process's message.

        Raises:
            GfbError: As :meth:`gather`.
        """
        return message

    def broadcast_tensors(self, purpose: str, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process, in place.

        Raises:
            GfbError: As :meth:`gather`.
        """

    def meet(self, purpose: str) -> None:
        """Go on when all processes have come here.

        Raises:
            GfbError: As :meth:`gather`.
        """
        self.gather(purpose, b"")

    def require_equal(self, what: str, content: bytes, advice: str) -> None:
        """Check that something is the same in all processes.

        Args:
            what: What it is; begins the message.
            content: Equal where the thing is equal; any length.
            advice: What to do when it is not.

        Raises:
            DistributedError: If it is not.
            GfbError: As :meth:`gather`.
        """
        if self.size == 1:
            return
        digests = self.gather(what, hashlib.sha256(content).digest())
        for rank, digest in enumerate(digests):
            if digest != digests[0]:
                raise DistributedError(
                    f"Not the same in all processes of the run: {what}. Process {rank} of {self.size} "
                    f"differs from process 0. {advice}"
                )

    def first_value(self, purpose: str, compute: Callable[[], float]) -> float:
        """A number that only the first process computes.

        Raises:
            GfbError: As :meth:`gather`.
        """
        own = np.float64(compute() if self.is_first else np.nan).tobytes()
        return float(np.frombuffer(self.broadcast(purpose, own), dtype=np.float64)[0])


_current: ContextVar[World] = ContextVar("world", default=World())  # noqa: B039 - has no state


def current_world() -> World:
    """The processes that work together here: those of the run, or this one alone outside of a run."""
    return _current.get()


@contextmanager
def working_in(world: World) -> Iterator[World]:
    """Make ``world`` the current one inside the block."""
    token = _current.set(world)
    try:
        yield world
    finally:
        _current.reset(token)
