"""What all figures for papers look like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.colours import INK, MUTED

WIDTH_IN = 7.0
_INCH_PER_LETTER = 0.053
STYLE: Any = {  # the names of settings are a type in some versions of Matplotlib
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dfe3e8",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "text.color": INK,
    "text.parse_math": False,  # names are no formulas
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "pdf.fonttype": 42,  # publishers refuse Type 3 fonts
    "svg.fonttype": "none",
    "svg.hashsalt": "gfb_brevitas",
}

_Drawn = TypeVar("_Drawn", bound=Callable[[RecordedRun], Figure])


def styled(draw: _Drawn) -> _Drawn:
    """Let a function draw in the style of the figures, whatever the user's settings are."""

    @wraps(draw)
    def drawn(run: RecordedRun) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(run)

    return drawn  # type: ignore[return-value]


def panels(
    titles: Sequence[str], heights_in: Sequence[float], *, labels: Sequence[str] = (), shared_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with panels one below the other.

    Args:
        titles: Titles of the panels.
        heights_in: Heights of the panels.
        labels: Names on the horizontal axis, upright, where there are some.
        shared_x: Whether they share the horizontal axis; otherwise each has such names.
    """
    label_in = _INCH_PER_LETTER * max(map(len, labels), default=0)
    height = sum(heights_in) + label_in * (1 if shared_x else len(titles))
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    axes = figure.subplots(
        len(titles), 1, sharex=shared_x, squeeze=False, gridspec_kw={"height_ratios": list(heights_in)}
    )[:, 0]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
    return figure, list(axes)


def message(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(WIDTH_IN, 1.2), layout="constrained")
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def legend_above(figure: Figure, axes: Iterable[Axes], *, columns: int = 6) -> None:
    """One legend for all panels, above them; equal names stand once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=columns)


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=9))


def logarithmic(axis: Axes, values: Iterable[float | None]) -> None:
    """Make the vertical axis logarithmic, with plain numbers.

    Args:
        axis: The panel.
        values: What it shows.
    """
    positive = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    narrow = bool(positive) and max(positive) / min(positive) < 60
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.yaxis.set_major_formatter(PLAIN_NUMBERS)
    axis.yaxis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: int | None) -> str:
    return f"{value:g}"


PLAIN_NUMBERS = FuncFormatter(_plain)
