"""Envelopes: messages of one size that processes exchange, whatever they are about.

Because all envelopes have the same size, a process that fails can join any exchange with its error
instead, and processes that are at different places notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZE_BYTES = 4096
_HEAD_BYTES = 16
_PURPOSE_BYTES = 112
CAPACITY_BYTES = SIZE_BYTES - _HEAD_BYTES - _PURPOSE_BYTES


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A message.

    Attributes:
        purpose: What the process is doing; cut where it is too long.
        body: The message, at most :data:`CAPACITY_BYTES`.
        failed: Whether the body is an error instead.
    """

    purpose: str
    body: bytes
    failed: bool = False

    def packed(self) -> bytes:
        """The message as :data:`SIZE_BYTES` bytes."""
        head = np.array([self.failed, len(self.body)], dtype="<i8").tobytes()
        purpose = self.purpose.encode("ascii", "replace")[:_PURPOSE_BYTES].ljust(_PURPOSE_BYTES, b"\0")
        return (head + purpose + self.body).ljust(SIZE_BYTES, b"\0")

    @classmethod
    def unpacked(cls, data: bytes) -> Envelope:
        """Read what :meth:`packed` made."""
        failed, length = np.frombuffer(data[:_HEAD_BYTES], dtype="<i8").tolist()
        start = _HEAD_BYTES + _PURPOSE_BYTES
        purpose = data[_HEAD_BYTES:start].rstrip(b"\0").decode("ascii")
        return cls(purpose=purpose, body=data[start : start + length], failed=bool(failed))


def disagreement(envelopes: Sequence[Envelope]) -> str:
    """What the processes do, where they do not all do the same; otherwise empty."""
    if len({envelope.purpose for envelope in envelopes}) == 1:
        return ""
    return "; ".join(f"process {rank}: {envelope.purpose}" for rank, envelope in enumerate(envelopes))
