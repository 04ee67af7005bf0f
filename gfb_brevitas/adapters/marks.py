"""Where values come from, remembered with the memory that holds them.

All views of one memory have one mark, and what is written into it changes it: values that are moved by
slicing or written in place keep their quantizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from gfb_brevitas.profile import FLOAT_BITS, Operand


@dataclass(frozen=True)
class Mark:
    """Where a tensor's values come from: searched quantizers, and the width of unsearched ones.

    Attributes:
        names: Names of the searched quantizers.
        constant_bits: The largest width of the unsearched quantizers among the sources; 0 if there is none.
        scales: Searched quantizers whose scale the values have, also where they are sums.
    """

    names: tuple[str, ...] = ()
    constant_bits: float = 0.0
    scales: tuple[str, ...] = ()

    @property
    def is_quantized(self) -> bool:
        """Whether all the values come from quantizers."""
        return bool(self.names) or 0 < self.constant_bits < FLOAT_BITS

    def operand(self) -> Operand:
        """The mark as one side of a product."""
        if not self.is_quantized:
            return Operand()
        if not self.names:
            return Operand(constant_bits=self.constant_bits)
        return Operand(quantizers=self.names, least_bits=self.constant_bits)


FLOAT = Mark(constant_bits=FLOAT_BITS)
"""The mark of values that no quantizer made."""


def join(marks: Iterable[Mark]) -> Mark:
    """The mark of values that come from all of several sources."""
    return reduce(_join, marks)


def _join(one: Mark, other: Mark) -> Mark:
    scales = tuple(dict.fromkeys((*one.scales, *other.scales)))
    if not (one.is_quantized and other.is_quantized):
        return Mark(constant_bits=FLOAT_BITS, scales=scales)
    names = tuple(dict.fromkeys((*one.names, *other.names)))
    return Mark(names, max(one.constant_bits, other.constant_bits), scales)


class Marks:
    """The mark of every memory that a forward pass has touched."""

    def __init__(self) -> None:
        # A weak reference keeps the address of a freed memory from being given to another one.
        self._of: dict[int, tuple[StorageWeakRef, Mark | None]] = {}

    def __getitem__(self, tensor: object) -> Mark:
        """The mark of a tensor's values; :data:`FLOAT` where there is none."""
        return self._entry(tensor) or FLOAT

    def __setitem__(self, tensor: Tensor, mark: Mark | None) -> None:
        """State where all values in the tensor's memory come from; ``None`` before any is written."""
        storage = _storage(tensor)
        if storage is not None:
            self._of[storage._cdata] = StorageWeakRef(storage), mark

    def knows(self, tensor: Tensor) -> bool:
        """Whether the tensor's memory was seen before."""
        storage = _storage(tensor)
        return storage is None or storage._cdata in self._of

    def is_unwritten(self, tensor: Tensor) -> bool:
        """Whether nothing was ever seen being written into the tensor's memory."""
        return self.knows(tensor) and self._entry(tensor) is None

    def write(self, tensor: Tensor, mark: Mark | None, *, is_blank: bool = False) -> None:
        """State where the values come from that were written in place, into all the memory or a part of it.

        Args:
            tensor: What was written into.
            mark: Where its values come from now; ``None`` for zeros, which have every width.
            is_blank: Whether the memory held only zeros before.
        """
        storage = _storage(tensor)
        if storage is None:
            return
        whole = tensor.numel() * tensor.element_size() == storage.nbytes()
        before = self._entry(tensor)
        if whole or is_blank or before is None:
            self[tensor] = mark or FLOAT
        else:
            self[tensor] = before if mark is None else _join(before, mark)

    def _entry(self, tensor: object) -> Mark | None:
        storage = _storage(tensor)
        if storage is None:
            return FLOAT
        return self._of.get(storage._cdata, (None, FLOAT))[1]


def whole_memory(tensor: Tensor) -> Tensor:
    """All values in the memory that a tensor is a part of; shape ``(n,)``."""
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())


def _storage(tensor: object) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage() if isinstance(tensor, Tensor) else None
    except (NotImplementedError, RuntimeError):  # sparse, nested
        return None
