"""Names and paths in tables, which are broken at their own joints where there is no room for them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from gfb_brevitas.terminal import visible

_PIECE = re.compile(r"[^./_\- ]*[./_\- ]*")


@dataclass(frozen=True)
class Name:
    """A name in a cell of a table: never read as markup, broken behind dots, underscores, dashes and slashes.

    Attributes:
        text: The name.
        style: How it is shown.
    """

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines that fit into the width that there is."""
        yield Text("\n".join(broken(self.text, options.max_width)), style=self.style, overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """At least its longest piece, at most all of it."""
        pieces = max(map(cell_len, _pieces(self.text)), default=1)
        return Measurement(max(1, pieces), max(1, cell_len(visible(self.text)))).with_maximum(
            options.max_width
        )


def broken(name: str, width: int) -> list[str]:
    """A name in lines of at most a width, broken at its joints.

    Example:
        >>> broken("features.stage3.0.conv1.weight_quant", 20)
        ['features.stage3.0.', 'conv1.weight_quant']
    """
    lines = [""]
    for piece in _pieces(name):
        if lines[-1] and cell_len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _pieces(name: str) -> list[str]:
    return [piece for piece in _PIECE.findall(visible(name).replace("\n", " ")) if piece]
