"""Accuracy of searched widths against uniform ones on handwritten digits, at equal training.

The budgets are 0.9 times the weight bits and 0.98 times the mean activation bits of the uniform widths.
"""

from __future__ import annotations

from _harness import Figures, Settings, run_benchmark
from _searches import compare_with_uniform
from digits import digits_experiment


def measure(settings: Settings) -> Figures:
    """Rows per budget and per run; accuracies are those of the test images."""
    quick = settings["short_training"]
    budgets, runs = compare_with_uniform(
        lambda seed: digits_experiment(seed, quick=quick),
        settings["uniform_bits"],
        range(settings["seeds"]),
        input_name="0.act_quant",
    )
    return {"budgets": budgets, "runs": runs}


if __name__ == "__main__":
    run_benchmark(
        "digits",
        measure,
        settings={"uniform_bits": [2, 3], "seeds": 5, "short_training": False},
        quick={"seeds": 1, "short_training": True},
    )
