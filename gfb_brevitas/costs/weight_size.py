"""Model size: the bits of all quantized weights."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import ClassVar

import numpy as np

from gfb_brevitas.costs._parts import joined, layer_of
from gfb_brevitas.costs.protocol import NO_LAYER, BoundCost, Joining
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector


@dataclass(frozen=True, kw_only=True)
class WeightSize:
    """Bits of all quantized weights: elements times width, whether the width is searched or not.

    This is the size of the quantized weights alone; weights that are not quantized, scales, biases and a
    file's headers are not in it. Taken as the C_1 that GradFreeBits (doi:10.3390/s22249772) constrains
    [ours].

    Args:
        name: Name in reports.
    """

    name: str = "weight_size"
    unit: ClassVar[str] = "bits"
    monotone: ClassVar[bool] = True
    joined_by: ClassVar[Joining] = "sum"

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`."""
        columns = profile.columns("weight")
        elements = profile.elements()[columns]
        constant_bits = profile.constant_weight_bits

        def size_bits(bits: Bits) -> Vector:
            total: Vector = bits[:, columns].astype(np.float64) @ elements + constant_bits
            return total

        return size_bits

    def parts(self, profile: ModelProfile, bits: Bits) -> dict[str, float]:
        """Bits of each layer's weights; see :class:`~gfb_brevitas.costs.protocol.LayeredCost`."""
        weights = [(profile.quantizers[j], bits[j]) for j in profile.columns("weight")]
        found = joined(((layer_of(q.name), q.elements * float(width)) for q, width in weights), add)
        fixed = float(profile.constant_weight_bits)
        return found | ({NO_LAYER: fixed} if fixed else {})

    @staticmethod
    def megabytes(size_bits: float) -> float:
        """A size in MB (10^6 bytes, as in the paper's tables: ResNet18 at 32 bits has 46.8 MB)."""
        return size_bits / 8e6
