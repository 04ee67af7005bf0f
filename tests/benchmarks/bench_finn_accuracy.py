"""Accuracy on a board: the search against the best uniform widths that fit, at one budget and frame rate.

The network and settings of examples/fpga.py on Fashion-MNIST; the budget is a share of a Pynq-Z1 at 30,000
samples per second. Of the uniform widths that fit, the one of the best validation accuracy counts; the next
wider ones, which do not fit, are shown too. Everything is trained for as many epochs.

The data is looked for in the folder GFB_FASHION_MNIST (default data/fashion_mnist), and downloaded into it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from _harness import Figures, Settings, run_benchmark

from gfb_brevitas.dataflow import Target

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from fashion_mnist import fashion_data
from fpga import best_that_fits, fpga_story


def measure(settings: Settings) -> Figures:
    folder = Path(os.environ.get("GFB_FASHION_MNIST", "data/fashion_mnist"))
    data = fashion_data(folder, settings["train_samples"], settings["test_samples"])
    target = Target(board=settings["board"], fps=settings["fps"])
    rows: list[dict[str, Any]] = []
    gains = []
    for seed in range(settings["seeds"]):
        story = fpga_story(data, target, settings["utilisation"], seed, quick=settings["quick"])
        outcomes = [story.fit(bits)[1] for bits in settings["uniform_bits"]]
        best = best_that_fits(outcomes)
        assert best is not None
        searched = story.fit()[1]
        gains.append(100 * (searched.test - best.test))
        for o in (*outcomes, searched):
            rows.append(
                {
                    "seed": seed,
                    "widths": o.name,
                    "fits": o.feasible,
                    "LUT": o.lut,
                    "BRAM18": o.bram_18k,
                    "DSP": o.dsp,
                    "validation": o.validation,
                    "test": o.test,
                }
            )
    return {
        "outcomes": rows,
        "accuracy_gain_points": mean(gains),
        "smallest_gain_points": min(gains),
        "lut_budget": next(b.limit for b in story.budgets if b.name == "lut"),
    }


if __name__ == "__main__":
    run_benchmark(
        "finn_accuracy",
        measure,
        settings={
            "board": "Pynq-Z1",
            "fps": 30_000,
            "utilisation": 0.15,
            "uniform_bits": [2, 3, 4],
            "train_samples": 6_000,
            "test_samples": 10_000,
            "seeds": 3,
            "quick": False,
        },
        quick={"seeds": 1, "train_samples": 1_000, "test_samples": 1_000, "quick": True, "uniform_bits": [3]},
    )
