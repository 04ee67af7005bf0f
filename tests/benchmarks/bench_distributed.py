"""Two processes with one thread each against one with one thread: rates, allocations, weights.

Rates are measured in turn in the same processes, of which all but the first wait while it works alone;
``scaling_without_exchange`` is what the machine gives to processes that do not know of each other.

The searches are those of the digits example at its small size. With training on whole batches they are to be
the same bit for bit. Training on parts of batches changes last digits, which rounding to few bits amplifies;
how much is to be compared with one process whose first weights are changed by 1e-7.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _distributed_work import relative_deviation, search
from _harness import Figures, Settings, run_benchmark


def measure(settings: Settings) -> Figures:
    """Scaling of candidates and of training steps, and how a search of several differs from one's."""
    together = in_processes(settings)
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, Any]]] = {"whole": [], "divided": [], "nudged": []}
    for seed in range(settings["seeds"]):
        one = search(seed, data_parallel=False)
        rows["whole"].append(compared(seed, "2 processes, whole batches", together["whole"][seed], one))
        rows["divided"].append(compared(seed, "2 processes, parts", together["divided"][seed], one))
        nudged = search(seed, data_parallel=False, nudge=1e-7)
        rows["nudged"].append(compared(seed, "1 process, weights 1e-7 off", nudged, one))
    return {
        "scaling": min(row["scaling"] for row in together["rates"]),
        "same_allocation": all(row["same_allocation"] for row in rows["whole"]),
        "training_scaling": together["training"]["scaling"],
        "training_deviation": max(row["loss_deviation_in_epoch_1"] for row in rows["divided"]),
        "candidates": together["rates"],
        "training": [together["training"]],
        "searches": [row for kind in rows.values() for row in kind],
    }


def in_processes(settings: Settings) -> dict[str, Any]:
    """What the first of several processes has measured."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "figures.pt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command += [str(settings["processes"]), str(Path(__file__).with_name("_distributed_work.py"))]
        command += [json.dumps(dict(settings)), str(file)]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def compared(seed: int, name: str, found: Any, one: Any) -> dict[str, Any]:
    """A search against that of one process."""
    deviations = [abs(a - b) / b for a, b in zip(found[2], one[2], strict=True)]
    weights = [
        relative_deviation(found[3][name], value)
        for name, value in one[3].items()
        if value.is_floating_point()
    ]
    return {
        "search": name,
        "seed": seed,
        "same_allocation": found[0] == one[0],
        "loss_deviation_in_epoch_1": deviations[0],
        "largest_loss_deviation": max(deviations),
        "weight_deviation": max(weights),
        "accuracy": found[1],
        "accuracy_of_one": one[1],
    }


if __name__ == "__main__":
    run_benchmark(
        "distributed",
        measure,
        settings={
            "processes": 2,
            "evaluators": ["auto", "reference"],
            "candidates": 12,
            "minibatches": 2,
            "batch_size": 128,
            "steps": 8,
            "repeats": 7,
            "seeds": 3,
        },
        quick={"candidates": 4, "batch_size": 16, "steps": 1, "repeats": 1, "seeds": 1},
    )
