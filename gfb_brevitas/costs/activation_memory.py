"""Memory of activations per sample."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import ClassVar, Literal, get_args

import numpy as np

from gfb_brevitas.costs._parts import joined, layer_of
from gfb_brevitas.costs.protocol import BoundCost, Joining
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector

Total = Literal["sum", "largest"]


@dataclass(frozen=True, kw_only=True)
class ActivationMemory:
    """Bits of the searchable activations of one sample.

    Args:
        name: Name in reports.
        total: ``"sum"``: all activations together (traffic, or a design that keeps them all);
            ``"largest"``: the largest single tensor (the buffer of a design that reuses one).

    Raises:
        ConfigurationError: If ``total`` is neither.
    """

    name: str = "activation_memory"
    total: Total = "sum"
    unit: ClassVar[str] = "bits"
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.total not in get_args(Total):
            raise ConfigurationError(f'`total` must be "sum" or "largest"; got {self.total!r}.')

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        Raises:
            ConfigurationError: If the model has no searchable activation quantizer.
        """
        columns = profile.columns("activation")
        if not len(columns):
            raise ConfigurationError(
                "Activation memory needs a searchable activation quantizer; there is none."
            )
        if self.total == "sum":
            return _sum(columns, profile.elements()[columns])
        largest = [profile.quantizers[j].largest_call_elements for j in columns]
        return _largest(columns, np.array(largest, dtype=np.float64))

    @property
    def joined_by(self) -> Joining:
        """As :attr:`total` says."""
        return self.total

    def parts(self, profile: ModelProfile, bits: Bits) -> dict[str, float]:
        """Bits of what each layer puts out; see :class:`~gfb_brevitas.costs.protocol.LayeredCost`."""
        of = [(profile.quantizers[j], float(bits[j])) for j in profile.columns("activation")]
        if self.total == "sum":
            return joined(((layer_of(q.name), q.elements * width) for q, width in of), add)
        return joined(((layer_of(q.name), q.largest_call_elements * width) for q, width in of), max)


def _sum(columns: Bits, elements: Vector) -> BoundCost:
    def memory_bits(bits: Bits) -> Vector:
        total: Vector = bits[:, columns].astype(np.float64) @ elements
        return total

    return memory_bits


def _largest(columns: Bits, elements: Vector) -> BoundCost:
    def memory_bits(bits: Bits) -> Vector:
        largest: Vector = (bits[:, columns] * elements).max(axis=1)
        return largest

    return memory_bits
