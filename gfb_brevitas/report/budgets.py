"""How much of a budget is used, in a cell of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from gfb_brevitas.constraints import BudgetUse

ABOVE = "!"
"""Marks what is above its budget, where colours are not seen too."""


def use_cell(use: BudgetUse | Mapping[str, Any] | None) -> Text:
    """The share of a limit that is used; marked and red where it is above."""
    if use is None:
        return Text("–")
    share, kept = (use.use, use.feasible) if isinstance(use, BudgetUse) else (use["use"], use["feasible"])
    return Text(share_text(share, bool(kept)), style="" if kept else "bold red")


def share_text(share: float | None, kept: bool) -> str:
    """The share of a limit that is used, marked where it is above; neither is rounded over the limit.

    Example:
        >>> (
        ...     share_text(0.91649, True),
        ...     share_text(0.9997, True),
        ...     share_text(1.0003, False),
        ...     share_text(2, False),
        ... )
        ('91.6%', '99.9%', '100.1%!', '200%!')
    """
    if share is None or not math.isfinite(share):
        text = "–"
    elif kept:
        text = f"{min(share, 0.999 if share < 1 else 1.0):.1%}"
    else:
        text = f"{max(share, 1.001):.1%}" if share < 1.1 else f"{share:.0%}"
    return text if kept else f"{text}{ABOVE}"


def heading_of(budget: str) -> str:
    r"""A budget's name as a heading of a narrow column.

    Example:
        >>> heading_of("mean_activation_bits")
        'mean\nactivation\nbits'
    """
    return budget.replace("_", "\n")
