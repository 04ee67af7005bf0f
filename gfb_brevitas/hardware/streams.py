"""Nodes between products that take cycles but, in FINN's estimates, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import FloatArray
from gfb_brevitas.hardware.node import Folding, Widths, divisors, require_positive
from gfb_brevitas.hardware.resources import Resources


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """A node whose estimate holds cycles alone (``hwcustomop.py`` of FINN gives the zeros).

    Args:
        channels: Channels.
        vectors: Vectors of channels that it puts out per sample.

    Raises:
        ConfigurationError: If a number is below 1.
    """

    kind: ClassVar[str] = ""

    channels: int
    vectors: int = 1

    def __post_init__(self) -> None:
        require_positive(self.kind, channels=self.channels, vectors=self.vectors)

    def resources(self, folding: Folding, widths: Widths, dsp_block: DspBlock) -> Resources:
        """FINN's estimate: nothing."""
        return Resources()


@dataclass(frozen=True, kw_only=True)
class Padding(_Stream):
    """FINN's FMPadding: zeros around an image. FINN: ``custom_op/fpgadataflow/fmpadding.py``.

    Args:
        channels: Channels.
        vectors: Pixels of the padded image.
    """

    kind: ClassVar[str] = "FMPadding"

    def foldings(self) -> Folding:
        """Divisors of the channels (SIMD)."""
        return Folding(simd=divisors(self.channels))

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        cycles: FloatArray = self.channels / folding.simd * self.vectors
        return cycles


@dataclass(frozen=True, kw_only=True)
class _Channelwise(_Stream):
    """A node that is unrolled over channels, one vector after the other."""

    def foldings(self) -> Folding:
        """Divisors of the channels (PE)."""
        return Folding(pe=divisors(self.channels))

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        cycles: FloatArray = self.channels / folding.pe * self.vectors
        return cycles


@dataclass(frozen=True, kw_only=True)
class DuplicateStreams(_Channelwise):
    """FINN's DuplicateStreams: one stream for several readers.

    FINN: ``custom_op/fpgadataflow/duplicatestreams.py``.
    """

    kind: ClassVar[str] = "DuplicateStreams"


@dataclass(frozen=True, kw_only=True)
class Reshape(_Channelwise):
    """FINN's Reshape: another order of the same values, as for a flattened input.

    FINN: ``custom_op/fpgadataflow/reshape.py``.
    """

    kind: ClassVar[str] = "Reshape"


@dataclass(frozen=True, kw_only=True)
class Shuffle(_Stream):
    """FINN's Shuffle: another order of the axes, as behind a network that puts out an image.

    FINN takes it apart after its estimates, which have no cycles for it.
    FINN: ``custom_op/fpgadataflow/shuffle.py``.
    """

    kind: ClassVar[str] = "Shuffle"

    def foldings(self) -> Folding:
        """One: it is not folded."""
        return Folding()

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample in FINN's estimate: none."""
        cycles: FloatArray = 0.0 * (folding.pe * folding.simd)
        return cycles


@dataclass(frozen=True, kw_only=True)
class Elementwise(_Channelwise):
    """FINN's ElementwiseAdd or ElementwiseMul, of two streams or of a stream and constants.

    Constants are embedded in its code, and are not estimated.
    FINN: ``custom_op/fpgadataflow/elementwise_binary.py``.

    Args:
        channels: Channels.
        vectors: Vectors of channels per sample.
        operation: ``"Add"`` or ``"Mul"``.
    """

    kind: ClassVar[str] = "Elementwise"

    operation: str = "Add"


@dataclass(frozen=True, kw_only=True)
class Pool(_Channelwise):
    """FINN's Pool: the largest value, or the average, of each window.

    FINN: ``custom_op/fpgadataflow/pool.py``.

    Args:
        channels: Channels.
        vectors: Output pixels per sample.
        window: Elements of the kernel (height times width).
    """

    kind: ClassVar[str] = "Pool"

    window: int = 1

    def cycles(self, folding: Folding) -> FloatArray:
        """Clock cycles per sample."""
        return super().cycles(folding) * self.window
