"""What all tables for the terminal look like."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table


def compact_table(**settings: Any) -> Table:
    """A table without frame: in 80 columns, frames take the place of numbers."""
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, **settings)
