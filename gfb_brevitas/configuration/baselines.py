"""What a search is compared with, by the entries of a configuration."""

from __future__ import annotations

from collections.abc import Iterable

from gfb_brevitas.configuration.schema import BaselineEntry
from gfb_brevitas.constraints import Baseline, Constraints, by_hand, widest_uniform
from gfb_brevitas.constraints.baselines import uniform


def baselines_of(
    entries: Iterable[BaselineEntry], constraints: Constraints
) -> tuple[list[Baseline], list[str]]:
    """The fixed widths to train, each once, and what there is to say of those that there are not.

    Args:
        entries: Uniform widths, or names: ``"auto"``, ``"by_hand"``.
        constraints: The budgets, with the search space.
    """
    found: dict[str, Baseline] = {}
    notes: list[str] = []
    for entry in entries:
        if entry == "auto" and not constraints.budgets:
            continue  # nothing says which widths to compare with
        baseline = _baseline(entry, constraints)
        if baseline is not None:
            found.setdefault(baseline.name, baseline)
        elif entry == "auto":
            notes.append("No uniform widths keep the budgets.")
        else:
            notes.append("With 8 bits for the input, the first and the last layer nothing keeps the budgets.")
    return list(found.values()), list(dict.fromkeys(notes))


def _baseline(entry: BaselineEntry, constraints: Constraints) -> Baseline | None:
    if entry == "auto":
        return widest_uniform(constraints)
    if entry == "by_hand":
        return by_hand(constraints)
    return uniform(constraints.space, *(entry if isinstance(entry, tuple) else (entry,)))
