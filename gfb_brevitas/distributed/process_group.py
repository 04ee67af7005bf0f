"""A world of several processes, through torch.distributed.

There are two groups. Messages and everything on the CPU go through gloo; sums of CUDA tensors go through
NCCL where every process has a device of its own. On the CPU every operation begins with an exchange of
envelopes, so an error in one process is the same error in all of them. NCCL's sums are not preceded by
one, since that would make the device wait: whoever uses them calls :meth:`ProcessGroup.meet` before.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gfb_brevitas.distributed.envelope import CAPACITY_BYTES, SIZE_BYTES, Envelope, disagreement
from gfb_brevitas.distributed.failures import heard, told
from gfb_brevitas.distributed.world import World
from gfb_brevitas.errors import DistributedError

_logger = logging.getLogger(__name__)


class ProcessGroup(World):
    """All processes of the default process group of torch.distributed, which must exist."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._over = False
        self._nccl: Any = None
        self._may_use_nccl: bool | None = None
        self._received = [torch.empty(SIZE_BYTES, dtype=torch.uint8) for _ in range(self.size)]
        with self._carried("joining the run"):
            self._group = dist.new_group(backend="gloo")

    def gather(self, purpose: str, message: bytes) -> list[bytes]:
        """See :meth:`World.gather`."""
        if len(message) > CAPACITY_BYTES:
            raise ValueError(f"A message must have at most {CAPACITY_BYTES} bytes; got {len(message)}.")
        envelopes = self._exchange(Envelope(purpose=purpose, body=message))
        for envelope in envelopes:
            if envelope.failed:
                self._over = True
                raise heard(envelope.body)
        if places := disagreement(envelopes):
            self._over = True
            raise DistributedError(
                f"The processes of the run must do the same in the same order; they are at different places "
                f"({places}). Start the same script with the same arguments and data in all of them."
            )
        return [envelope.body for envelope in envelopes]

    def sum(self, purpose: str, tensor: Tensor) -> Tensor:
        """See :meth:`World.sum`."""
        if tensor.is_cuda and self._has_nccl(tensor.device):
            total = tensor.detach().clone()
            with self._carried(purpose):
                dist.all_reduce(total, group=self._nccl)
            return total
        values = tensor.detach().cpu().contiguous()
        total = self._small_sum(purpose, values) if _fits(values) else self._large_sum(purpose, values)
        return total.to(tensor.device)

    def broadcast(self, purpose: str, message: bytes) -> bytes:
        """See :meth:`World.broadcast`."""
        length = int(self.gather(purpose, str(len(message)).encode())[0])
        data = torch.empty(length, dtype=torch.uint8)
        if self.is_first:
            data = torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else data
        self._send_from_first(purpose, data)
        return data.numpy().tobytes()

    @torch.no_grad()
    def broadcast_tensors(self, purpose: str, tensors: Sequence[Tensor]) -> None:
        """See :meth:`World.broadcast_tensors`."""
        shapes = [f"{tensor.dtype}{tuple(tensor.shape)}" for tensor in tensors]
        advice = "Make the same model in all of them."
        self.require_equal(f"{purpose}, their shapes", "\n".join(shapes).encode(), advice)
        contents = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in tensors]
        if not contents:
            return
        everything = torch.cat(contents)
        self._send_from_first(purpose, everything)
        if not self.is_first:
            for tensor, data in zip(tensors, everything.split([len(data) for data in contents]), strict=True):
                # A copy, since numbers must begin at multiples of their size.
                tensor.copy_(data.clone().view(tensor.dtype).reshape(tensor.shape))

    def leave(self, error: BaseException | None = None) -> None:
        """Leave the run together: at its end, or with an error that the others are told.

        Raises:
            GfbError: If there is no error here but in another process.
        """
        try:
            if error is None:
                self.meet("end of the run")
            elif not self._over:
                body = told(error, self.rank, self.size, CAPACITY_BYTES)
                self._exchange(Envelope(purpose="failure", body=body, failed=True))
        except DistributedError:
            if error is None:
                raise
        finally:
            self._over = True

    def close(self) -> None:
        """Give the groups back."""
        for group in (self._group, self._nccl):
            if group is not None:
                dist.destroy_process_group(group)

    def _exchange(self, envelope: Envelope) -> list[Envelope]:
        sent = torch.frombuffer(bytearray(envelope.packed()), dtype=torch.uint8)
        with self._carried(envelope.purpose):
            dist.all_gather(self._received, sent, group=self._group)
        return [Envelope.unpacked(data.numpy().tobytes()) for data in self._received]

    def _small_sum(self, purpose: str, values: Tensor) -> Tensor:
        bodies = self.gather(f"{purpose} ({values.numel()} numbers)", values.numpy().tobytes())
        parts = [torch.frombuffer(bytearray(body), dtype=values.dtype) for body in bodies]
        return torch.stack(parts).sum(dim=0).reshape(values.shape)

    def _large_sum(self, purpose: str, values: Tensor) -> Tensor:
        self.meet(f"{purpose} ({values.numel()} numbers)")
        total = values.clone()
        with self._carried(purpose):
            dist.all_reduce(total, group=self._group)
        return total

    def _send_from_first(self, purpose: str, data: Tensor) -> None:
        if data.numel():
            with self._carried(purpose):
                dist.broadcast(data, src=0, group=self._group)

    def _has_nccl(self, device: torch.device) -> bool:
        if self._may_use_nccl is None:
            place = f"{socket.gethostname()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')} {device}"
            places = self.gather("choosing devices", place.encode()[:CAPACITY_BYTES])
            self._may_use_nccl = dist.is_nccl_available() and len(set(places)) == self.size
            if self._may_use_nccl:
                self._nccl = dist.new_group(backend="nccl")
            else:
                _logger.warning(
                    "Processes share a CUDA device, or there is no NCCL: gradients are exchanged through the "
                    "CPU. Give every process its own device, with torchrun --virtual-local-rank or "
                    "torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) at the beginning of the script."
                )
        return self._may_use_nccl

    @contextmanager
    def _carried(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what torch.distributed raises when a process is gone
            self._over = True
            reason = str(error).strip().split("\n")[0]
            raise DistributedError(
                f"The processes of the run lost each other at {purpose!r}: {reason}. One has ended or "
                "cannot be reached; what it printed says why. Start all of them again, with resume=True "
                "if there is a run folder."
            ) from error


def _fits(values: Tensor) -> bool:
    return values.numel() * values.element_size() <= CAPACITY_BYTES
