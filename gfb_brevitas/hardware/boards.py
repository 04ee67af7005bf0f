"""Boards, their parts, and how many resources these have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gfb_brevitas.errors import ConfigurationError

DspBlock = Literal["DSP48E1", "DSP48E2", "DSP58"]
"""The DSP block of 7-series, of UltraScale(+) and of Versal parts."""

_FINN = "FINN, util/platforms.py"
_VERSAL = ("xcvc", "xcve", "xcvp", "xcvm", "xqvc", "xqvm", "xqrvc", "xcv80")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board's FPGA: its part number and what it has in total, over all dies.

    Attributes:
        name: FINN's name of the board.
        part: Part number.
        lut: Lookup tables.
        bram_18k: Block RAMs of 18 kbit.
        uram: UltraRAMs of 288 kbit.
        dsp: DSP blocks.
        source: Where the numbers are from.
        aliases: Other names of the same board.
    """

    name: str
    part: str
    lut: int
    bram_18k: int
    uram: int
    dsp: int
    source: str = _FINN
    aliases: tuple[str, ...] = field(default=(), repr=False)

    @property
    def dsp_block(self) -> DspBlock:
        """The DSP block of its part."""
        return dsp_block(self.part)


def dsp_block(part: str) -> DspBlock:
    """The DSP block of a part number (``util/basic.py``, get_dsp_block)."""
    if part.startswith(_VERSAL):
        return "DSP58"
    return "DSP48E1" if part[2:3] == "7" else "DSP48E2"


BOARDS = (
    Board(name="Pynq-Z1", part="xc7z020clg400-1", lut=53_200, bram_18k=280, uram=0, dsp=220),
    Board(name="Pynq-Z2", part="xc7z020clg400-1", lut=53_200, bram_18k=280, uram=0, dsp=220),
    Board(
        name="Ultra96",
        part="xczu3eg-sbva484-1-e",
        lut=71_000,
        bram_18k=412,
        uram=0,
        dsp=360,
        aliases=("Ultra96-V2",),
    ),
    Board(
        name="KV260_SOM",
        part="xck26-sfvc784-2LV-c",
        lut=117_120,
        bram_18k=288,
        uram=64,
        dsp=1_248,
        source="AMD DS987, Kria K26 SOM",
        aliases=("KV260",),
    ),
    Board(name="ZCU102", part="xczu9eg-ffvb1156-2-e", lut=274_000, bram_18k=1_824, uram=0, dsp=2_520),
    Board(name="ZCU104", part="xczu7ev-ffvc1156-2-e", lut=230_000, bram_18k=610, uram=92, dsp=1_728),
    Board(name="ZCU111", part="xczu28dr-ffvg1517-2-e", lut=425_000, bram_18k=2_160, uram=80, dsp=4_272),
    Board(
        name="RFSoC2x2",
        part="xczu28dr-ffvg1517-2-e",
        lut=425_000,
        bram_18k=2_160,
        uram=80,
        dsp=4_272,
        source=f"{_FINN}, ZCU111 (the same part)",
    ),
    Board(
        name="RFSoC4x2",
        part="xczu48dr-ffvg1517-2-e",
        lut=425_280,
        bram_18k=2_160,
        uram=80,
        dsp=4_272,
        source="AMD DS889, Zynq UltraScale+ RFSoC",
    ),
    Board(name="U50", part="xcu50-fsvh2104-2L-e", lut=742_560, bram_18k=2_256, uram=608, dsp=5_352),
    Board(name="U200", part="xcu200-fsgd2104-2-e", lut=971_520, bram_18k=3_696, uram=800, dsp=5_856),
    Board(name="U250", part="xcu250-figd2104-2L-e", lut=1_500_000, bram_18k=4_608, uram=1_280, dsp=11_520),
    Board(name="U280", part="xcu280-fsvh2892-2L-e", lut=1_163_520, bram_18k=3_504, uram=960, dsp=8_496),
    Board(name="U55C", part="xcu55c-fsvh2892-2L-e", lut=1_131_000, bram_18k=3_552, uram=960, dsp=8_304),
)
"""The boards that budgets can be stated for. FINN's part numbers: ``util/basic.py``, part_map."""

_BY_NAME = {name.lower(): board for board in BOARDS for name in (board.name, *board.aliases)}


def board(name: str) -> Board:
    """The board called ``name``; upper and lower case are the same.

    Example:
        >>> board("Pynq-Z1").lut
        53200

    Raises:
        ConfigurationError: If there is none.
    """
    found = _BY_NAME.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        known = ", ".join(item.name for item in BOARDS)
        raise ConfigurationError(f"A board must be one of {known}; got {name!r}.")
    return found
