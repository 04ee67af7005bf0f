"""Widths of product operands for a whole population at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gfb_brevitas.profile import ModelProfile, Operand
from gfb_brevitas.space import Bits, Vector


class OperandWidths:
    """The width of each of N sides, a side being one or more operands of which the widest counts.

    Args:
        profile: The model's quantizers.
        sides: For each side its operands.
    """

    def __init__(self, profile: ModelProfile, sides: Sequence[Sequence[Operand]]) -> None:
        constants = sorted({width for side in sides for o in side for width in _constants(o)})
        self._constants = np.array(constants, dtype=np.float64)
        # A constant is one more column behind the quantizers' own.
        column_of = {width: len(profile) + i for i, width in enumerate(constants)}
        columns = [_columns(profile, side, column_of) for side in sides]
        longest = max(map(len, columns), default=1)
        padded = [side + side[:1] * (longest - len(side)) for side in columns]
        self._index = np.array(padded, dtype=np.int64).reshape(len(sides), longest).T

    def __call__(self, bits: Bits) -> Vector:
        """Widths of shape ``(P, sides)``, in bits, of ``bits`` of shape ``(P, quantizers)``."""
        constants = np.broadcast_to(self._constants, (len(bits), len(self._constants)))
        table = np.concatenate([bits, constants], axis=1)
        widths: Vector = table[:, self._index[0]]
        for columns in self._index[1:]:
            np.maximum(widths, table[:, columns], out=widths)
        return widths


def _columns(profile: ModelProfile, side: Sequence[Operand], column_of: dict[float, int]) -> list[int]:
    found: list[int] = []
    for operand in side:
        found.extend(profile.column(name) for name in operand.quantizers)
        found.extend(column_of[width] for width in _constants(operand))
    return list(dict.fromkeys(found))


def _constants(operand: Operand) -> tuple[float, ...]:
    """Widths that an operand has whatever its quantizers' are."""
    if not operand.quantizers:
        return (operand.constant_bits,)
    return (operand.least_bits,) if operand.least_bits else ()
