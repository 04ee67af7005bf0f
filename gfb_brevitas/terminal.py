"""What all output for the terminal goes through: text is shown as it is, never read as markup.

Names of layers, runs and files may hold anything, ``[`` and ``:`` included, which rich would read as styles
and emoji. Consoles and tables are made here and nowhere else.
"""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints strings as they are."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_lines(console: Console, text: str, *, lead: str = "", style: str = "") -> None:
    """Print text on anyone's console as it is, and not wrapped: what is copied from it is then whole.

    Args:
        console: Where to print.
        text: The text.
        lead: Words in front of it that stand out.
        style: How they do, e.g. ``"bold red"``.
    """
    console.print(Text.assemble((visible(lead), style), visible(text)), soft_wrap=True)


class PlainTable(Table):
    """A table whose strings are shown as they are, on every console."""

    def __init__(self, *, title: str | None = None, caption: str | None = None, **settings: Any) -> None:
        super().__init__(title=_literal(title, "table.title"), **settings)
        self.caption = _literal(caption, "table.caption")

    def __setattr__(self, name: str, value: Any) -> None:
        styles = {"title": "table.title", "caption": "table.caption"}
        super().__setattr__(name, _literal(value, styles[name]) if name in styles else value)

    def add_column(self, header: RenderableType = "", footer: RenderableType = "", **settings: Any) -> None:
        """Add a column; see :meth:`rich.table.Table.add_column`."""
        super().add_column(_literal(header), _literal(footer), **settings)

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        """Add a row; see :meth:`rich.table.Table.add_row`."""
        super().add_row(*map(_literal, cells), **settings)


def compact_table(**settings: Any) -> Table:
    """A table without frame: in 80 columns, frames take the place of numbers."""
    return PlainTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, **settings)


def _literal(value: Any, style: str = "") -> Any:
    """Strings as text that holds no markup; all else as it is."""
    return Text(visible(value), style=style) if isinstance(value, str) else value


def visible(text: str) -> str:
    """Text with its control characters, which would steer the terminal, written out."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
