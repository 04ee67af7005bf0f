"""What each part of the method is worth: one change at a time, on handwritten digits at uniform 2 bits.

Every variant takes as many epochs and candidates as the first one, which is the digits example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from _harness import Figures, Settings, run_benchmark
from _searches import search_row
from digits import digits_experiment
from experiment import Experiment


def _search(**changes: Any) -> Callable[[Experiment], Experiment]:
    return lambda experiment: replace(experiment, search=replace(experiment.search, **changes))


def _one_round(experiment: Experiment) -> Experiment:
    search = experiment.search
    one = replace(
        search,
        rounds=1,
        steps_per_round=search.rounds * search.steps_per_round,
        epochs_per_round=search.rounds * search.epochs_per_round,
    )
    return replace(experiment, search=one)


VARIANTS: dict[str, Callable[[Experiment], Experiment]] = {
    "defaults": lambda experiment: experiment,
    "super-batch: fixed": _search(super_batch="fixed"),
    "super-batch: one minibatch": _search(super_batch="single"),
    "clipping: constant": lambda experiment: replace(experiment, clipping="constant"),
    "clipping: one per width": lambda experiment: replace(experiment, clipping="per_bit"),
    "a single round": _one_round,
    "distribution carried over": _search(carry_distribution=True),
    "penalty weight 20 for both budgets": lambda experiment: replace(experiment, rho=20.0),
    "BatchNorm: running statistics": _search(batchnorm="running"),
    "pretraining at the uniform widths": _search(pretrain_bits=None),
}


def measure(settings: Settings) -> Figures:
    """Rows per variant and per run; accuracies are those of the test images."""
    runs = []
    for name, change in VARIANTS.items():
        for seed in range(settings["seeds"]):
            experiment = change(digits_experiment(seed, quick=settings["short_training"]))
            runs.append({"variant": name, **search_row(experiment, settings["uniform_bits"], seed)})
            print(runs[-1], flush=True)
    return {"variants": [_summary(name, runs) for name in VARIANTS], "runs": runs}


def _summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [run["accuracy"] for run in runs if run["variant"] == name]
    return {
        "variant": name,
        "accuracy": mean(accuracies),
        "spread": stdev(accuracies) if len(accuracies) > 1 else 0.0,
    }


if __name__ == "__main__":
    run_benchmark(
        "ablation",
        measure,
        settings={"uniform_bits": 2, "seeds": 5, "short_training": False},
        quick={"seeds": 1, "short_training": True},
    )
