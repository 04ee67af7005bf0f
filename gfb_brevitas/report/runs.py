"""Runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from rich.table import Table

from gfb_brevitas.report.budgets import ABOVE, heading_of, use_cell
from gfb_brevitas.report.columns import ROOM_BESIDE_A_NAME, Columns, fitted, width_of
from gfb_brevitas.report.comparison import (
    Contender,
    budgets_of,
    comparison_of,
    comparison_table,
    use_of,
)
from gfb_brevitas.report.names import Name
from gfb_brevitas.report.verdict import comparison_in_words, notes_of, verdict
from gfb_brevitas.search import RecordedRun, RecordedSeeds
from gfb_brevitas.search.seeds import spread
from gfb_brevitas.terminal import compact_table


def run_rows(runs: Sequence[RecordedRun | RecordedSeeds]) -> list[dict[str, Any]]:
    """Runs as plain data: how far each is, its metric, its budgets and its allocation.

    Args:
        runs: The runs; of one that has not ended the last round counts. Runs of several seeds are one row:
            means, the standard deviation of the metrics, the largest use of every budget, a row of each seed.
    """
    return [_folded(run) if isinstance(run, RecordedSeeds) else _row(run) for run in runs]


def runs_tables(runs: Sequence[RecordedRun | RecordedSeeds]) -> list[Table | str]:
    """What the terminal shows: a row per run, how each compares with fixed widths, the widths side by side.

    Args:
        runs: The runs. One of several seeds alone is shown with a row and the widths of each seed.
    """
    alone = runs[0] if len(runs) == 1 else None
    parts: list[Table | str] = []
    if isinstance(alone, RecordedSeeds):
        shown = run_rows(alone.runs)
        compared = folded_comparison(alone.runs)
        if len(compared) > 1:
            parts.append(comparison_table(compared, f"{compared[-1].measured}, {len(alone.runs)} seeds"))
        overview = _overview([*run_rows(runs), *shown])
    else:
        shown = run_rows(runs)
        overview = _overview(shown)
    words = {str(run.path): _words(run) for run in runs}
    judged = "\n".join(f"{name}: {' '.join(said)}" for name, said in words.items() if said)
    parts = [overview, *parts, *([judged] if judged else [])]
    return [*parts, _widths(shown)] if any(row["allocation"] for row in shown) else parts


def _words(run: RecordedRun | RecordedSeeds) -> list[str]:
    if isinstance(run, RecordedRun):
        return comparison_in_words(run.summary or {})
    notes = [note for one in run.runs for note in notes_of(one.summary or {})]
    return verdict(folded_comparison(run.runs), list(dict.fromkeys(notes)))


def folded_comparison(runs: Sequence[RecordedRun]) -> list[Contender]:
    """The comparisons of runs of several seeds as one: means, and the largest use of every budget."""
    found = [rows for run in runs if (rows := comparison_of(run.summary or {}))]
    names = dict.fromkeys(row.name for rows in found for row in rows)
    same = [[row for rows in found for row in rows if row.name == name] for name in names]
    return sorted((_mean_of(rows) for rows in same if len(rows) == len(found)), key=lambda row: row.searched)


def _mean_of(rows: Sequence[Contender]) -> Contender:
    costs = [
        max((use for row in rows if (use := use_of(row, name)) is not None), key=lambda use: use.use)
        for name in budgets_of(rows)
    ]
    return replace(
        rows[0],
        accuracy=fmean(row.accuracy for row in rows),
        spread=spread([row.accuracy for row in rows]),
        test=_mean([row.test for row in rows]),
        weight_bits=fmean(row.weight_bits for row in rows),
        mean_weight_bits=_mean([row.mean_weight_bits for row in rows]),
        mean_activation_bits=_mean([row.mean_activation_bits for row in rows]),
        bit_operations=_mean([row.bit_operations for row in rows]),
        seconds=fmean(row.seconds for row in rows),
        costs=tuple(costs),
    )


def _folded(seeds: RecordedSeeds) -> dict[str, Any]:
    rows = [_row(run) for run in seeds.runs]
    states = {row["state"] for row in rows}
    folded: dict[str, Any] = {
        "run": str(seeds.path),
        "state": states.pop()
        if len(states) == 1
        else f"{sum(r['state'] == 'ended' for r in rows)}/{len(rows)}",
        "seed": f"{rows[0]['seed']}-{rows[-1]['seed']}",
        "seconds": sum(row["seconds"] for row in rows),
    }
    for name in ("metric", "test_metric"):
        values = [row[name] for row in rows if row[name] is not None]
        folded |= {name: _mean(values), f"{name}_spread": spread(values) if values else None}
    folded |= {name: rows[0][name] for name in ("rounds", "epochs", "evaluations")}
    uses = [cost for row in rows for cost in row["costs"]]
    names = dict.fromkeys(cost["name"] for cost in uses)
    largest = [max((c for c in uses if c["name"] == name), key=lambda c: c["use"] or 0) for name in names]
    widths = {name: _span([row["allocation"].get(name) for row in rows]) for name in rows[0]["allocation"]}
    return {**folded, "costs": largest, "allocation": widths, "seeds": rows}


def _span(widths: Sequence[int | None]) -> int | str:
    """One width, or the smallest and the largest."""
    known = [width for width in widths if width is not None]
    return min(known) if min(known) == max(known) else f"{min(known)}-{max(known)}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _row(run: RecordedRun) -> dict[str, Any]:
    rounds = run.history.rounds
    if run.summary is not None:
        metric, costs = run.summary.get("metric"), run.summary.get("costs", [])
        allocation: Mapping[str, int] = run.allocation or {}
    elif rounds:
        metric, costs, allocation = rounds[-1].metric, list(rounds[-1].costs), rounds[-1].allocation
    else:
        metric, costs, allocation = None, [], {}
    return {
        "run": str(run.path),
        "state": run.status.state,
        "status": run.status.to_dict(),
        "metric": metric,
        "test_metric": (run.summary or {}).get("test_metric"),
        "rounds": len(rounds),
        "epochs": len(run.history.epochs),
        "evaluations": sum({(g.round, g.step): g.evaluations for g in run.history.generations}.values()),
        "seconds": run.history.seconds,
        "seed": run.configuration.get("search", {}).get("seed"),
        "costs": [dict(cost) for cost in costs],
        "allocation": dict(allocation),
    }


def _overview(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = _columns(rows)
    kept = fitted(columns, ("candi-\ndates", "epochs", "seed", "time"))
    table = _upright(rows, kept) if width_of(kept) <= ROOM_BESIDE_A_NAME else _lying(rows, columns)
    if not all(cost["feasible"] for row in rows for cost in row["costs"]):
        table.caption = f"{ABOVE} above the budget"
    return table


def _upright(rows: Sequence[Mapping[str, Any]], columns: Columns) -> Table:
    """A row for every run."""
    table = compact_table(caption_justify="left")
    table.add_column("run")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(rows):
        table.add_row(Name(row["run"]), *(cells[place] for cells in columns.values()))
    return table


def _lying(rows: Sequence[Mapping[str, Any]], columns: Columns) -> Table:
    """A column for every run, where there are too many budgets for a row."""
    table = _side_by_side("run", rows)
    for heading, cells in columns.items():
        table.add_row(heading.replace("-\n", "").replace("\n", " "), *cells)
    return table


def _columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    columns: Columns = {"state": [row["state"] for row in rows]}
    for name, heading in (("metric", "metric"), ("test_metric", "test")):
        if name == "metric" or any(row[name] is not None for row in rows):
            columns[heading] = [_with_spread(row[name], row.get(f"{name}_spread")) for row in rows]
    for budget in dict.fromkeys(cost["name"] for row in rows for cost in row["costs"]):
        columns[heading_of(budget)] = [use_cell(_cost(row, budget)) for row in rows]
    for name, heading in (("epochs", "epochs"), ("evaluations", "candi-\ndates"), ("seed", "seed")):
        columns[heading] = [str(row[name]) for row in rows]
    columns["time"] = [f"{row['seconds']:.0f} s" for row in rows]
    return columns


def _with_spread(value: float | None, around: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if around is None else f"{value:.4g} ± {around:.2g}"


def _cost(row: Mapping[str, Any], budget: str) -> Mapping[str, Any] | None:
    return next((cost for cost in row["costs"] if cost["name"] == budget), None)


def _widths(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _side_by_side("quantizer", rows)
    for name in dict.fromkeys(name for row in rows for name in row["allocation"]):
        table.add_row(Name(name), *(str(row["allocation"].get(name, "–")) for row in rows))
    return table


def _side_by_side(first: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = compact_table(caption_justify="left")
    table.add_column(first)
    for row in rows:
        table.add_column(Name(row["run"]), justify="right")
    return table
