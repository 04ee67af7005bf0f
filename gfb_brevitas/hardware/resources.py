"""What a node takes of an FPGA."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from gfb_brevitas.hardware.datatypes import FloatArray


def _nothing() -> FloatArray:
    return np.zeros(())


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Estimated use of the four resources of an FPGA; arrays that broadcast against each other.

    Two add up resource by resource.

    Example:
        >>> (Resources(lut=[300, 400]) + Resources(lut=1, dsp=2)).lut
        array([301., 401.])

    Args:
        lut: Lookup tables, (P,).
        bram_18k: Block RAMs of 18 kbit, (P,).
        uram: UltraRAMs of 288 kbit, (P,).
        dsp: DSP blocks, (P,).
    """

    lut: FloatArray = field(default_factory=_nothing)
    bram_18k: FloatArray = field(default_factory=_nothing)
    uram: FloatArray = field(default_factory=_nothing)
    dsp: FloatArray = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, np.asarray(getattr(self, item.name), dtype=np.float64))

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            lut=self.lut + other.lut,
            bram_18k=self.bram_18k + other.bram_18k,
            uram=self.uram + other.uram,
            dsp=self.dsp + other.dsp,
        )

    def table(self) -> FloatArray:
        """LUT, BRAM_18K, URAM and DSP as the last axis, (P, 4)."""
        return np.stack(np.broadcast_arrays(self.lut, self.bram_18k, self.uram, self.dsp), axis=-1)
