"""Searches against uniform widths, over budgets and seeds: what the accuracy benchmarks share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from experiment import Experiment

Row = dict[str, Any]


def search_row(experiment: Experiment, bits: int, seed: int) -> Row:
    """One search: accuracy, use of the budgets, allocation."""
    result, row = experiment.fit(bits)
    return {
        "uniform_bits": bits,
        "seed": seed,
        "accuracy": row.accuracy,
        "validation": result.metric,
        "max_budget_use": max(use.use for use in result.costs),
        "mean_weight_bits": row.mean_weight_bits,
        "mean_activation_bits": row.mean_activation_bits,
        "allocation": " ".join(str(width) for width in result.allocation.values()),
        "seconds": round(row.seconds, 1),
    }


def compare_with_uniform(
    make_experiment: Callable[[int], Experiment],
    budgets: Sequence[int],
    seeds: Sequence[int],
    input_name: str | None = None,
) -> tuple[list[Row], list[Row]]:
    """Search and uniform widths, trained equally long, for every budget and seed.

    Args:
        make_experiment: From a seed.
        budgets: Uniform widths whose cost, times beta, is the budget.
        seeds: Seeds.
        input_name: Name of the quantizer of the network's input. If given, there is a second uniform
            baseline that has it at 8 bits, beyond the budget.

    Returns:
        One row per budget and one per run.
    """
    runs = []
    for bits in budgets:
        for seed in seeds:
            experiment = make_experiment(seed)
            row = search_row(experiment, bits, seed)
            row["uniform_accuracy"] = experiment.fit_uniform(bits)[1].accuracy
            if input_name is not None:
                beyond = experiment.fit_uniform(bits, fixed={input_name: 8})
                row["uniform_input_8_accuracy"] = beyond[1].accuracy
            runs.append(row)
            print(row, flush=True)
    return [_summary(bits, [run for run in runs if run["uniform_bits"] == bits]) for bits in budgets], runs


def _summary(bits: int, runs: Sequence[Row]) -> Row:
    gains = [100 * (run["accuracy"] - run["uniform_accuracy"]) for run in runs]
    accuracies = [name for name in runs[0] if name.endswith("accuracy")]
    return {
        "uniform_bits": bits,
        "accuracy_gain_points": mean(gains),
        "gain_spread_points": stdev(gains) if len(gains) > 1 else 0.0,
        "max_budget_use": max(run["max_budget_use"] for run in runs),
        **{name: mean(run[name] for run in runs) for name in accuracies},
        "seeds": len(runs),
    }
