"""A comparison in words: was the search worth it, within the budgets?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gfb_brevitas.quantities import difference
from gfb_brevitas.report.budgets import ABOVE, share_text
from gfb_brevitas.report.comparison import Contender, comparison_of


def verdict(contenders: Sequence[Contender], notes: Sequence[str] = ()) -> list[str]:
    """The result of a comparison in sentences.

    Example:
        >>> verdict(rows)  # doctest: +SKIP
        ['Best uniform widths within the budgets (uniform 2): 95.21%; this: 98.00% (+2.79).']

    Args:
        contenders: The rows; the last one that was searched is the one that is judged.
        notes: What else there is to say, e.g. that no uniform widths keep the budgets.
    """
    searched = next((row for row in reversed(contenders) if row.searched), None)
    if searched is None:
        return list(notes)
    return [*_sentences(searched, [row for row in contenders if not row.searched], notes)]


def comparison_in_words(summary: Mapping[str, Any]) -> list[str]:
    """The :func:`verdict` on the comparison in a ``summary.json``; nothing where there is none."""
    return verdict(comparison_of(summary), notes_of(summary))


def notes_of(summary: Mapping[str, Any]) -> list[str]:
    """What a ``summary.json`` says of fixed widths that were not trained."""
    notes = summary.get("comparison_notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _sentences(this: Contender, others: Sequence[Contender], notes: Sequence[str]) -> Iterator[str]:
    yield from notes
    uniform = [row for row in others if row.name.startswith("uniform")]
    best = _best(uniform)
    if best is not None:
        yield f"{_best_in_words(this, best)}: {best.shown}; this: {this.shown} ({_better(this, best)})."
        yield from _on_test(this, best)
    elif uniform:
        yield f"No uniform widths that were trained keep the {_budgets(this)}; this: {this.shown}."
    else:
        yield f"This: {this.shown}."
    for row in others:
        if row.kept and row not in uniform:
            yield f"{_capital(row.name)}: {row.shown} (this: {_better(this, row)})."
    for row in (*others, this):
        if not row.kept:
            yield _above(row, this)


def _best(rows: Sequence[Contender]) -> Contender | None:
    kept = [row for row in rows if row.kept]
    return max(kept, key=lambda row: row.accuracy, default=None)


def _best_in_words(this: Contender, best: Contender) -> str:
    within = f" within the {_budgets(this)}" if this.costs else ""
    return f"Best uniform widths{within} ({best.name})"


def _budgets(this: Contender) -> str:
    return "budget" if len(this.costs) == 1 else "budgets"


def _better(this: Contender, other: Contender) -> str:
    return difference(this.accuracy - other.accuracy, this.measured)


def _on_test(this: Contender, best: Contender) -> Iterator[str]:
    if this.test is not None and best.test is not None:
        better = difference(this.test - best.test, this.test_measured or this.measured)
        yield f"On the test data: {best.shown_test}; this: {this.shown_test} ({better})."


def _above(row: Contender, this: Contender) -> str:
    over = [use for use in row.costs if not use.feasible]
    uses = ", ".join(f"{use.name} at {share_text(use.use, kept=False).removesuffix(ABOVE)}" for use in over)
    name = "This" if row is this else _capital(row.name)
    return f"{name} reaches {row.shown} above its {'budget' if len(over) == 1 else 'budgets'}: {uses}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
