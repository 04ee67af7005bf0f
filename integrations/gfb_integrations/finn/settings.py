"""Settings of a build, checked before FINN starts."""

from __future__ import annotations

import math
import sys
from numbers import Real
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import board as board_called


def build_settings(
    board: str,
    *,
    fps: float | None = None,
    clock_mhz: float = 100.0,
    standalone_thresholds: bool = False,
    folding_file: str | Path | None = None,
) -> dict[str, Any]:
    """What FINN's process takes as settings.

    Raises:
        ConfigurationError: If one is not valid.
    """
    _require_positive("clock_mhz", clock_mhz)
    if fps is not None:
        _require_positive("fps", fps)
        if fps > clock_mhz * 1e6:
            raise ConfigurationError(
                f"`fps` must be at most {1e6 * clock_mhz:,.0f} at {clock_mhz:g} MHz, one sample per clock "
                f"cycle; got {fps:,.0f}."
            )
    return {
        "board": name_of_board(board),
        "fps": None if fps is None else math.ceil(fps),
        "clock_mhz": float(clock_mhz),
        "standalone_thresholds": bool(standalone_thresholds),
        "folding_file": None if folding_file is None else str(Path(folding_file).absolute()),
    }


def name_of_board(board: str) -> str:
    """FINN's name of a board; boards that only FINN knows keep the name that they are given."""
    if not isinstance(board, str) or not board.strip():
        raise ConfigurationError(f'`board` must be the name of a board, e.g. "Pynq-Z1"; got {board!r}.')
    try:
        return board_called(board).name
    except ConfigurationError:
        return board


def _require_positive(name: str, value: object) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    # Also whole numbers that are beyond all floats.
    if not (is_number and 0 < value < sys.float_info.max):  # type: ignore[operator]
        raise ConfigurationError(f"`{name}` must be a finite number above zero; got {repr(value)[:40]}.")
