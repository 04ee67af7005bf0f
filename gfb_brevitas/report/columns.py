"""Columns of a table that fits into a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

Columns = dict[str, list[str | Text]]
"""Cells by heading."""

ROOM_BESIDE_A_NAME = 66
_BETWEEN = 2


def fitted(columns: Columns, droppable: Sequence[str], room: int = ROOM_BESIDE_A_NAME) -> Columns:
    """The columns without those that there is no room for.

    Args:
        columns: All columns.
        droppable: Headings of what may be left out, the first one first.
        room: Characters that there are.
    """
    kept = dict(columns)
    for heading in droppable:
        if width_of(kept) > room:
            kept.pop(heading, None)
    return kept


def width_of(columns: Mapping[str, Sequence[str | Text]]) -> int:
    """Characters that columns take, each with the space in front of it."""
    texts = ((*heading.split("\n"), *map(str, cells)) for heading, cells in columns.items())
    return sum(_BETWEEN + max(map(cell_len, column)) for column in texts)
