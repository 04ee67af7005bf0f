"""Colours that the colour-blind tell apart, and shapes that go with them."""

from __future__ import annotations

from collections.abc import Sequence

INK = "#1c2430"
MUTED = "#66707d"
GRID = "#e6e9ed"
BAND = "#eef1f5"
STEP_BAND = "#f6e3d3"

# Okabe and Ito (2008), darkened where lines on white need it.
WEIGHT = "#0b62a4"
ACTIVATION = "#c8520a"
GOOD = "#00785a"
ACCENT = "#8a3f76"
BAD = "#a3261b"

OF_KIND = {"weight": WEIGHT, "activation": ACTIVATION}
HATCH_OF_KIND = {"weight": "", "activation": "/"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")

_DEPTH = ("#35b2a0", "#1f7fb0", "#2c4a9b", "#2a1a5e")  # of one hue's neighbourhood, light to dark
ORDINAL_SCALE: Sequence[Sequence[float | str]] = (
    (0.0, "#e8a33d"),
    (0.35, "#c8520a"),
    (0.7, "#8a2f5c"),
    (1.0, "#35124e"),
)
HEAT_SCALE: Sequence[Sequence[float | str]] = (
    (0.0, "#f3f6fa"),
    (0.25, "#bcd3ea"),
    (0.5, "#6da3d3"),
    (0.75, "#2a6ca8"),
    (1.0, "#0a2a55"),
)


def by_depth(place: int, count: int) -> str:
    """The colour of the quantizer at a place of the forward order.

    Example:
        >>> by_depth(0, 10), by_depth(9, 10)
        ('#35b2a0', '#2a1a5e')
    """
    position = place / max(1, count - 1) * (len(_DEPTH) - 1)
    left = min(int(position), len(_DEPTH) - 2)
    return _mixed(_DEPTH[left], _DEPTH[left + 1], position - left)


def _mixed(first: str, second: str, share: float) -> str:
    pairs = zip(_channels(first), _channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
