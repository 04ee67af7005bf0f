"""Boards and their parts."""

from __future__ import annotations

import pytest

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import BOARDS, board, dsp_block


@pytest.mark.parametrize(
    "name",
    [
        *("Pynq-Z1", "Pynq-Z2", "Ultra96", "KV260", "ZCU102", "ZCU104", "ZCU111", "RFSoC2x2", "RFSoC4x2"),
        *("U50", "U200", "U250", "U280"),
    ],
)
def test_boards_have_resources(name):
    found = board(name)
    assert min(found.lut, found.bram_18k, found.dsp) > 200
    assert found.dsp_block == ("DSP48E1" if name.startswith("Pynq") else "DSP48E2")
    assert found.source
    assert board(name.upper()) is found


def test_names_are_unique():
    names = [name for item in BOARDS for name in (item.name, *item.aliases)]
    assert len(set(map(str.lower, names))) == len(names)


def test_a_board_that_is_not_known():
    with pytest.raises(ConfigurationError, match=r"Pynq-Z1.*got 'Arty'"):
        board("Arty")


def test_versal_parts():
    assert dsp_block("xcvc1902-vsva2197-2MP-e-S") == "DSP58"
    assert dsp_block("xcv80-lsva4737-2MHP-e-s") == "DSP58"
    assert dsp_block("xc7z020clg400-1") == "DSP48E1"
    assert dsp_block("xck26-sfvc784-2LV-c") == "DSP48E2"
