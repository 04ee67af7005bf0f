"""Bit operations (BOPs) of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import ClassVar

import numpy as np

from gfb_brevitas.costs._operand_widths import OperandWidths
from gfb_brevitas.costs._parts import joined
from gfb_brevitas.costs.operator_costs import require_known_operators
from gfb_brevitas.costs.protocol import BoundCost, Joining
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector


@dataclass(frozen=True, kw_only=True)
class BitOperations:
    """Sum over products of multiply-accumulates times both operands' widths, per sample.

    An operand that several quantizers make (a concatenation) counts at its widest; one that no
    searchable quantizer makes counts at its constant width. Accumulator widths are not counted, nor are
    element-wise multiplications.

    Args:
        name: Name in reports.
    """

    name: str = "bit_operations"
    unit: ClassVar[str] = "BOPs"
    monotone: ClassVar[bool] = True
    joined_by: ClassVar[Joining] = "sum"

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        Raises:
            ConfigurationError: If the profile holds no product, or an operator of which nobody knows what it
                multiplies.
        """
        require_known_operators(profile, self.name)
        if not profile.products:
            raise ConfigurationError("Bit operations need a model with products; its profile holds none.")
        left, right = _operands(profile)
        macs = np.array([product.macs for product in profile.products], dtype=np.float64)

        def bit_operations(bits: Bits) -> Vector:
            total: Vector = (left(bits) * right(bits)) @ macs
            return total

        return bit_operations

    def parts(self, profile: ModelProfile, bits: Bits) -> dict[str, float]:
        """Bit operations of each layer; see :class:`~gfb_brevitas.costs.protocol.LayeredCost`."""
        require_known_operators(profile, self.name)
        left, right = _operands(profile)
        widths = (left(bits[None]) * right(bits[None]))[0]
        products = zip(profile.products, widths, strict=True)
        return joined(((product.layer, product.macs * width) for product, width in products), add)


def _operands(profile: ModelProfile) -> tuple[OperandWidths, OperandWidths]:
    """Widths of the left and of the right operands of all products."""
    left = OperandWidths(profile, [(product.left,) for product in profile.products])
    return left, OperandWidths(profile, [(product.right,) for product in profile.products])
