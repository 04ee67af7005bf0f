"""What a chart shows, as a table and in words: for those who cannot see it, and for tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gfb_brevitas.quantities import quantity

Cell: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """The numbers of a chart.

    Attributes:
        columns: Headings.
        rows: Cells; ``None`` or NaN where there is no value.
        note: What the table leaves out, if anything.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers and nothing else."""
        return tuple(
            any(row[place] is not None for row in self.rows)
            and all(row[place] is None or _is_number(row[place]) for row in self.rows)
            for place in range(len(self.columns))
        )


class ChartData(Protocol):
    """What is drawn."""

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw; ``None`` if there is."""

    def description(self) -> str:
        """What the chart shows, in words."""

    def table(self) -> DataTable:
        """What the chart shows, in numbers."""


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def number_text(value: float | int | None, digits: int = 4) -> str:
    """A number for people.

    Example:
        >>> number_text(16948.8), number_text(12345), number_text(4e9), number_text(float("nan"))
        ('16.95k', '12,345', '4G', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**6 else quantity(value, digits)


def cell_text(value: Cell) -> str:
    """A cell for people.

    Example:
        >>> [cell_text(value) for value in (True, None, 12345, 0.5, "conv")]
        ['yes', '–', '12,345', '0.5', 'conv']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return number_text(value)
    return value


def listed(items: Sequence[str], most: int = 5) -> str:
    """Items in a sentence.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=2)
        ('a, b and c', 'a, b and 1 more')
    """
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> counted(1, "step"), counted(1200, "step")
        ('1 step', '1,200 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
