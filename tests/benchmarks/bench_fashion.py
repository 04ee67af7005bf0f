"""Accuracy of searched widths against uniform ones on Fashion-MNIST, a residual network, at equal training.

The budgets are 0.9 times the weight bits and 0.98 times the mean activation bits of the uniform widths.
The data is looked for in the folder GFB_FASHION_MNIST (default data/fashion_mnist), and downloaded into it.
"""

from __future__ import annotations

import os
from pathlib import Path

from _harness import Figures, Settings, run_benchmark
from _searches import compare_with_uniform
from fashion_mnist import fashion_data, fashion_experiment


def measure(settings: Settings) -> Figures:
    """Rows per budget and per run; accuracies are those of the test images."""
    folder = Path(os.environ.get("GFB_FASHION_MNIST", "data/fashion_mnist"))
    data = fashion_data(folder, settings["train_samples"], settings["test_samples"])
    quick = settings["short_training"]
    budgets, runs = compare_with_uniform(
        lambda seed: fashion_experiment(data, seed, quick=quick),
        settings["uniform_bits"],
        range(settings["seeds"]),
    )
    return {"budgets": budgets, "runs": runs}


if __name__ == "__main__":
    run_benchmark(
        "fashion",
        measure,
        settings={
            "uniform_bits": [2, 3],
            "seeds": 3,
            "train_samples": 6_000,
            "test_samples": 10_000,
            "short_training": False,
        },
        quick={
            "uniform_bits": [2],
            "seeds": 1,
            "train_samples": 1_000,
            "test_samples": 1_000,
            "short_training": True,
        },
    )
