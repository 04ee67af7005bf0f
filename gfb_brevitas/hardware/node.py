"""What every kind of hardware node has: legal foldings, cycles, resources."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, Protocol

import numpy as np

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, DataTypes, FloatArray, IntArray
from gfb_brevitas.hardware.resources import Resources

RamStyle = Literal["auto", "block", "distributed", "ultra"]
"""Where a memory goes; ``auto`` leaves it to the synthesis, and counts as block RAM in most estimates."""

MAX_STREAM_BITS = 8191
"""Widest weight stream of an HLS node (``util/basic.py``, MAX_ALLOWED_AP_INT_W)."""


def _one() -> IntArray:
    return np.ones((), dtype=np.int64)


def _no() -> BoolArray:
    return np.zeros((), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class Folding:
    """How far nodes are unrolled, one per candidate; arrays that broadcast against each other.

    Args:
        pe: Outputs (channels) computed in parallel, (P,).
        simd: Inputs (channels) taken in parallel, (P,).
        parallel_window: Whether a sliding window is given out at once, (P,).

    Raises:
        ConfigurationError: If a parallelism is below 1.
    """

    pe: IntArray = field(default_factory=_one)
    simd: IntArray = field(default_factory=_one)
    parallel_window: BoolArray = field(default_factory=_no)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pe", np.asarray(self.pe, dtype=np.int64))
        object.__setattr__(self, "simd", np.asarray(self.simd, dtype=np.int64))
        object.__setattr__(self, "parallel_window", np.asarray(self.parallel_window, dtype=np.bool_))
        lowest = min(self.pe.min(initial=1), self.simd.min(initial=1))
        if lowest < 1:
            raise ConfigurationError(f"PE and SIMD are at least 1; got {lowest}.")

    def as_list(self) -> Folding:
        """The same with every array of one shape, with one axis at least."""
        pe, simd, whole = np.broadcast_arrays(*map(np.atleast_1d, (self.pe, self.simd, self.parallel_window)))
        return Folding(pe=pe, simd=simd, parallel_window=whole)

    def __getitem__(self, index: IntArray) -> Folding:
        """The foldings at ``index``, of a list in which every array has one axis."""
        return Folding(**{item.name: np.asarray(getattr(self, item.name)[index]) for item in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The data types that a node's cost depends on; a kind of node reads those that it has.

    Args:
        inputs: Elements of the input stream.
        weights: Weights; for an elementwise operation its constant operand.
        outputs: Elements of the output stream. Asked of nodes with thresholds.
        accumulator_bits: Width of the accumulator in bits, (P,). ``None`` takes the data-type bound
            (:func:`~gfb_brevitas.hardware.accumulators.accumulator_types`).
        threshold_bits: Width of the thresholds in bits, (P,). Asked of standalone thresholds.
    """

    inputs: DataTypes | None = None
    weights: DataTypes | None = None
    outputs: DataTypes | None = None
    accumulator_bits: IntArray | None = None
    threshold_bits: IntArray | None = None


class HardwareNode(Protocol):
    """A node of FINN's hardware graph: the constants of its shape.

    Formulas are vectorised: arrays in foldings and widths broadcast against each other, so one call takes
    (P,) candidates, or (P, 1) candidates against (F,) foldings.
    """

    kind: ClassVar[str]
    """FINN's name of the operation, without its backend."""

    def foldings(self) -> Folding:
        """Every legal folding, (F,)."""

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""

    def resources(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> Resources:
        """FINN's estimate of the node."""


def require(what: str, value: DataTypes | None, kind: str) -> DataTypes:
    """``value``, which a node of this kind needs.

    Raises:
        ConfigurationError: If it is missing.
    """
    if value is None:
        raise ConfigurationError(
            f"The cost of {kind} depends on the data type of its {what}; give it in Widths."
        )
    return value


def divisors(number: int) -> IntArray:
    """The divisors of a positive number in rising order."""
    candidates = np.arange(1, number + 1)
    found: IntArray = candidates[number % candidates == 0].astype(np.int64)
    return found


def require_positive(kind: str, **numbers: int) -> None:
    """Check the shape constants of a node.

    Raises:
        ConfigurationError: If a number is not a whole number of at least one.
    """
    for name, value in numbers.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ConfigurationError(
                f"`{name}` of {kind} must be a whole number of at least 1; got {value!r}."
            )
