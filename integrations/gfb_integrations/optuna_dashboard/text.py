"""Notes for the dashboard, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gfb_brevitas.search.history import History, RoundRecord, StepRecord
from gfb_integrations.optuna_dashboard.figures import is_weight

# Comments that Markdown shows nowhere: what people write around them stays.
_BEGIN, _END = "[//]: # (gfb: begin)", "[//]: # (gfb: end)"


def replaced(note: str, text: str) -> str:
    """A note in which the part that was written here before is replaced, and the rest is as it was."""
    marked = f"{_BEGIN}\n\n{text}\n\n{_END}"
    before, begin, rest = note.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        return f"{before}{marked}{after}"
    return f"{note.rstrip()}\n\n{marked}" if note.strip() else marked


def search_text(name: str, history: History, configuration: Mapping[str, Any]) -> str:
    """What is known of a search so far."""
    search = configuration.get("search", {})
    rounds, best = history.rounds, max((r.best_metric for r in history.rounds[-1:]), default=None)
    lines = [f"## {_plain(name)}", ""]
    lines += [f"{len(rounds)} of {search.get('rounds', '?')} rounds, {len(history.epochs)} epochs."]
    if best is not None:
        lines += [f"Best validation metric within the budgets: **{best:.5g}**."]
    if rounds:
        lines += ["", *_rounds_table(rounds)]
    latest = latest_allocation(history)
    if latest is not None:
        lines += ["", f"### Bits, round {latest[0]}", "", *_bits_table(latest[1])]
    return "\n".join(lines)


def round_text(record: RoundRecord) -> str:
    """What a round came to."""
    lines = [f"Validation metric **{record.metric:.5g}** at the end of round {record.round}.", ""]
    lines += _table(
        ("budget", "cost", "limit", "used"),
        [
            (_plain(row["name"]), _cost(row), f"{row['limit']:.6g}", f"{row['use']:.1%}")
            for row in record.costs
        ],
    )
    return "\n".join([*lines, "", *_bits_table(record.allocation)])


def step_text(record: StepRecord) -> str:
    """What a gradient-free step did."""
    lines = [
        f"Gradient-free step {record.step} of round {record.round}: {record.evaluations} evaluations of "
        f"{record.distinct} different candidates in {record.generations} generations, "
        f"{record.feasible_share:.0%} within the budgets; stopped by {_plain(record.stopped)}.",
        "",
        "The value of a trial is its loss plus the penalty for violated budgets; both are among its user "
        "attributes, with the bits and every violation.",
        "",
        "The candidates that were evaluated again on more data; the first one was chosen:",
        "",
    ]
    lines += _table(
        ("source", "loss on super-batches", "loss on more data"),
        [(c.source, f"{c.super_batch_loss:.5g}", f"{c.reevaluated_loss:.5g}") for c in record.candidates],
    )
    return "\n".join(lines)


def latest_allocation(history: History) -> tuple[int, Mapping[str, int]] | None:
    """The round and the allocation that were reported last."""
    for record in reversed(history.records):
        if isinstance(record, StepRecord | RoundRecord):
            return record.round, record.allocation
    return None


def _rounds_table(rounds: Sequence[RoundRecord]) -> list[str]:
    budgets = [f"{_plain(row['name'])} (limit {row['limit']:.6g})" for row in rounds[0].costs]
    rows = [
        (
            str(record.round),
            f"{record.metric:.5g}",
            *(f"{_cost(row)} ({row['use']:.1%})" for row in record.costs),
        )
        for record in rounds
    ]
    return _table(("round", "validation metric", *budgets), rows)


def _bits_table(allocation: Mapping[str, int]) -> list[str]:
    rows = [
        (_plain(name), "weights" if is_weight(name) else "activations", str(bits))
        for name, bits in allocation.items()
    ]
    return _table(("quantizer", "of", "bits"), rows)


def _cost(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.6g} {_plain(row['unit'])}".rstrip()


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(name: str) -> str:
    """A name with nothing in it that Markdown would read."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~$&" else c for c in name)
