"""Columns of FINN data types: one entry per candidate.

FINN describes every stream and memory by a data type such as ``INT4`` or ``UINT8``
(``qonnx.core.datatype``). What its estimates ask of one is its width and its range.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gfb_brevitas.errors import ConfigurationError

# Names of what arrays hold. The formulas mix them as NumPy does, which its types do not follow.
IntArray = NDArray[Any]
FloatArray = NDArray[Any]
BoolArray = NDArray[Any]

_INTEGER = re.compile(r"(U?)INT([0-9]+)")
_SPECIAL = {"BINARY": (1, 0.0, 1.0), "BIPOLAR": (1, -1.0, 1.0), "TERNARY": (2, -1.0, 1.0)}
_FLOAT = {"FLOAT32": 32, "FLOAT16": 16}


@dataclass(frozen=True, kw_only=True)
class DataTypes:
    """Data types of one tensor, one per candidate; the three arrays broadcast against each other.

    Example:
        >>> DataTypes.signed([2, 4], narrow=True).low
        array([-1., -7.])

    Args:
        bits: Width of an element in bits, (P,).
        low: Smallest value of the tensor, (P,). Above the type's own smallest value where the range is
            narrow.
        high: Largest value of the tensor, (P,).

    Raises:
        ConfigurationError: If a width is below 1.
    """

    bits: IntArray
    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", np.asarray(self.bits, dtype=np.int64))
        object.__setattr__(self, "low", np.asarray(self.low, dtype=np.float64))
        object.__setattr__(self, "high", np.asarray(self.high, dtype=np.float64))
        if (self.bits < 1).any():
            raise ConfigurationError(f"Data types are at least 1 bit wide; got {self.bits.min()}.")

    @classmethod
    def signed(cls, bits: ArrayLike, *, narrow: bool = False) -> DataTypes:
        """Signed integers; ``narrow`` leaves out the most negative value."""
        widths = np.asarray(bits, dtype=np.int64)
        half = 2.0 ** (widths - 1)
        return cls(bits=widths, low=1.0 - half if narrow else -half, high=half - 1.0)

    @classmethod
    def unsigned(cls, bits: ArrayLike) -> DataTypes:
        """Unsigned integers."""
        widths = np.asarray(bits, dtype=np.int64)
        return cls(bits=widths, low=np.zeros(widths.shape), high=2.0**widths - 1.0)

    @classmethod
    def bipolar(cls, shape: tuple[int, ...] = ()) -> DataTypes:
        """Values -1 and 1, stored in one bit."""
        return cls(bits=np.ones(shape, np.int64), low=np.full(shape, -1.0), high=np.ones(shape))

    @classmethod
    def float32(cls, shape: tuple[int, ...] = ()) -> DataTypes:
        """Single precision floats; their range is given as infinite."""
        infinity = np.full(shape, np.inf)
        return cls(bits=np.full(shape, 32, dtype=np.int64), low=-infinity, high=infinity)

    @classmethod
    def of_range(cls, low: ArrayLike, high: ArrayLike) -> DataTypes:
        """The narrowest integer type that holds every value from ``low`` to ``high``.

        Signed where ``low`` is negative. Values -1 to 1 take two bits, as FINN narrows weights and
        thresholds (``matrixvectoractivation.py``, ``minimize_weight_bit_width``).
        """
        least, most = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        negative = least < 0
        magnitude = np.where(negative, np.maximum(-least, most + 1.0), np.maximum(most, 1.0) + 1.0)
        bits = np.ceil(np.log2(magnitude)).astype(np.int64) + negative
        return cls(bits=bits, low=least, high=most)

    @classmethod
    def named(cls, names: Sequence[str]) -> DataTypes:
        """The types with FINN's ``names``, such as ``INT4``, ``UINT8``, ``BIPOLAR`` or ``FLOAT32``.

        Raises:
            ConfigurationError: If a name is none of FINN's integer types, ``FLOAT32`` or ``FLOAT16``.
        """
        bits, low, high = zip(*(_numbers(name) for name in names), strict=True)
        return cls(bits=np.array(bits), low=np.array(low), high=np.array(high))

    @property
    def is_signed(self) -> BoolArray:
        """Whether the type holds negative values, (P,)."""
        return np.asarray(self.low < 0)

    @property
    def is_narrow(self) -> BoolArray:
        """Whether the smallest value is above that of a signed integer of this width, (P,)."""
        return np.asarray(self.low > -(2.0 ** (self.bits - 1)))

    @property
    def is_integer(self) -> BoolArray:
        """Whether the values are integers, (P,)."""
        return np.asarray(np.isfinite(self.low))


def _numbers(name: str) -> tuple[int, float, float]:
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name in _FLOAT:
        return _FLOAT[name], -np.inf, np.inf
    match = _INTEGER.fullmatch(name)
    if match is None:
        raise ConfigurationError(f"A data type is named as in FINN, such as INT4 or UINT8; got {name!r}.")
    bits = int(match[2])
    return (bits, 0.0, 2.0**bits - 1.0) if match[1] else (bits, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1.0)
