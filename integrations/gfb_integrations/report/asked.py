"""What was asked of a run: budgets, ranges and settings, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gfb_brevitas.costs.operator_costs import unknown_in_words
from gfb_brevitas.floating_point import (
    float_layers_headline,
    float_layers_in_words,
    stays_in_floats,
)
from gfb_brevitas.search import RecordedBudget, RecordedRun
from gfb_integrations.plots.data.table import Cell, DataTable, counted, listed, number_text


def budgets_table(run: RecordedRun) -> DataTable | None:
    """The budgets, how each was given, and its penalty weight."""
    asked = run.configuration.get("budgets", [])
    if not run.budgets:
        return None
    rows = []
    for place, budget in enumerate(run.budgets):
        given = asked[place] if place < len(asked) and isinstance(asked[place], Mapping) else {}
        rows.append((budget.name, number_text(budget.limit), budget.unit, _given(given), given.get("rho")))
    return DataTable(columns=("cost", "at most", "unit", "given as", "penalty weight"), rows=tuple(rows))


def _given(budget: Mapping[str, Any]) -> str:
    beta, uniform = budget.get("beta"), budget.get("uniform_bits")
    if beta is None or uniform is None:
        return "a number"
    widths = uniform if isinstance(uniform, list | tuple) else [uniform]
    text = f"{widths[0]} bits" if len(set(widths)) == 1 else f"{widths[0]} and {widths[-1]} bits"
    return f"{number_text(float(beta))} × the cost at uniform {text}"


def ranges_in_words(run: RecordedRun) -> Iterator[str]:
    """What was searched, in which ranges, what is tied, and what was left as it is."""
    searched = [q for q in run.quantizers if q.min_bits < q.max_bits]
    weights = sum(q.kind == "weight" for q in run.quantizers)
    activations = len(run.quantizers) - weights
    yield (
        f"{counted(len(run.quantizers), 'quantizer')} in the space: {weights:,} of weights and "
        f"{activations:,} of activations."
    )
    ranges: dict[tuple[int, int], int] = {}
    for q in searched:
        ranges[q.min_bits, q.max_bits] = ranges.get((q.min_bits, q.max_bits), 0) + 1
    for (low, high), count in sorted(ranges.items()):
        yield f"{counted(count, 'quantizer')} may take {low} to {high} bits."
    fixed = [f"{q.name} ({q.min_bits})" for q in run.quantizers if q.min_bits == q.max_bits]
    if fixed:
        yield f"Fixed, with their bits: {listed(fixed, 8)}."
    groups: dict[str, list[str]] = {}
    for q in run.quantizers:
        groups.setdefault(q.tie_group, []).append(q.name)
    tied = [names for names in groups.values() if len(names) > 1]
    for names in tied[:6]:
        yield f"One width for {listed(names, 8)}."
    if len(tied) > 6:
        yield f"And {counted(len(tied) - 6, 'more group')} with one width each."
    reasons: dict[str, list[str]] = {}
    for item in run.refused:
        reasons.setdefault(item.reason, []).append(item.name)
    for reason, names in reasons.items():
        yield f"Not searched ({reason}): {listed(names, 5)}."
    if headline := float_layers_headline(run.float_layers):
        yield f"Warning: {headline}" if stays_in_floats(run.float_layers) else headline
    for line in float_layers_in_words(run.float_layers):
        yield f"{line[0].upper()}{line[1:]}."
    yield from map(unknown_in_words, run.unknown_operators)


def plan_in_words(run: RecordedRun) -> str:
    """Rounds, steps and epochs that were planned."""
    search = run.configuration.get("search", {})

    def count(name: str, noun: str) -> str:
        return counted(int(search.get(name, 0)), noun)

    each = "" if search.get("steps_per_round") == 1 else " each"
    plan = (
        f"{count('rounds', 'round')} of {count('steps_per_round', 'gradient-free step')} "
        f"({count('evaluations_per_step', 'evaluation')}{each}, method {search.get('method', '–')}) and "
        f"{count('epochs_per_round', 'epoch')}"
    )
    if search.get("pretrain_epochs"):
        plan += f", after {count('pretrain_epochs', 'epoch')} at fixed widths"
    if run.configuration.get("allocation") is not None:
        plan = (
            f"{counted(planned_epochs(run), 'epoch')} at an allocation that was given: nothing was searched"
        )
    return f"{plan}. Seed {search.get('seed', '–')}."


def evaluators_in_words(run: RecordedRun) -> Iterator[str]:
    """What evaluated the candidates, and why nothing faster."""
    accounts: dict[str, int] = {}
    for step in run.history.steps:
        if step.evaluator:
            accounts[step.evaluator] = accounts.get(step.evaluator, 0) + 1
    for account, steps in accounts.items():
        where = "" if len(accounts) == 1 else f" in {counted(steps, 'gradient-free step')}"
        yield f"Candidates were evaluated by {account}{where}."


def planned_epochs(run: RecordedRun) -> int:
    """Epochs that the run has when it ends."""
    search = run.configuration.get("search", {})
    of_rounds = int(search.get("rounds", 0)) * int(search.get("epochs_per_round", 0))
    return int(search.get("pretrain_epochs", 0)) + of_rounds


def uniform_costs_table(run: RecordedRun) -> DataTable | None:
    """Every budget at every uniform width, and whether it fits."""
    if not run.budgets:
        return None
    widths = sorted({bits for budget in run.budgets for bits in budget.at_uniform_bits})
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (f"uniform {bits}", *(_use(budget, bits) for budget in run.budgets), _fits_all(run, bits))
        for bits in widths
    )
    columns = ("widths", *(f"{budget.name} ({budget.unit})" for budget in run.budgets), "within budgets")
    return DataTable(columns=columns, rows=rows)


def _use(budget: RecordedBudget, bits: int) -> str:
    cost = budget.at_uniform_bits.get(bits)
    if cost is None:
        return "–"
    share = f" ({cost / budget.limit:.0%})" if budget.limit > 0 else ""
    return f"{number_text(cost)}{share}"


def _fits_all(run: RecordedRun, bits: int) -> bool:
    return all(b.at_uniform_bits.get(bits, float("inf")) <= b.limit * (1 + 1e-9) for b in run.budgets)


def settings_table(settings: Any) -> DataTable:
    """Settings by name; nested ones as JSON."""
    found = settings if isinstance(settings, Mapping) else {}
    rows = tuple((str(name), _value(value)) for name, value in found.items() if name != "class")
    return DataTable(columns=("setting", "value"), rows=rows)


def _value(value: Any) -> Cell:
    if value is None:
        return "default"
    if isinstance(value, bool | int | str):
        return value if not isinstance(value, int) or isinstance(value, bool) else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)
