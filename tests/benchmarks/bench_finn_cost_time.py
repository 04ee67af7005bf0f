"""How long a candidate's hardware cost takes, against FINN's estimate; and what the cheapest folding saves.

The time per candidate is that of a population whose widths were not seen before, with the tables there; the
time of the tables is given beside it, and spread over a search of some generations. The savings compare the
cheapest folding with FINN's at the frame rate that FINN's reaches, as shares of the board summed over LUT,
BRAM, URAM and DSP.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
from _finn_models import NETWORKS, block, entry, trained
from _harness import Figures, Settings, run_benchmark
from torch import nn

from gfb_brevitas.adapters import SearchableModel, make_searchable
from gfb_brevitas.dataflow import Accelerator, PopulationCost, Target
from gfb_brevitas.dataflow.cheapest_folding import board_share
from gfb_integrations.finn import FinnProcess, estimate
from gfb_integrations.qonnx import export_qonnx

BOARD = "ZCU104"


def measure(settings: Settings) -> Figures:
    networks = {"20 layers": (twenty_layers, (3, 32, 32)), **NETWORKS}
    times, savings = [], []
    with FinnProcess() as finn, tempfile.TemporaryDirectory() as folder:
        for name in settings["networks"]:
            model, x = trained(networks[name], samples=1)
            searchable = make_searchable(model, x)
            savings += [{"network": name, **saving_row(searchable, fps)} for fps in settings["fps"]]
            if name in settings["timed"]:
                path = Path(folder) / f"{name}.onnx"
                export_qonnx(model, x, path)
                times += [
                    {"network": name, **time_row(searchable, path, fps, finn, settings)}
                    for fps in settings["fps"]
                ]
    first = next(r for r in times if r["network"] == settings["networks"][0])
    return {
        "times": times,
        "savings": savings,
        "us_per_candidate": first["us a candidate"],
        "us_per_candidate_with_tables": first["us with tables"],
        "times_faster": first["FINN s"] / (first["us with tables"] * 1e-6),
        "worst_share_of_finns": max(r["share of FINN's"] for r in savings),
        "median_share_of_finns": float(np.median([r["share of FINN's"] for r in savings])),
    }


def time_row(
    searchable: SearchableModel, path: Path, fps: float, finn: FinnProcess, settings: Settings
) -> dict[str, Any]:
    target = Target(board=BOARD, fps=fps)
    populations = draw(searchable, settings)
    started = time.perf_counter()
    accelerator = Accelerator.of(searchable.profile, target)
    accelerator.cost(populations[0])
    tables_s = time.perf_counter() - started
    spent = [seconds(accelerator, population) for population in populations[1:]]
    started = time.perf_counter()
    estimate(path, board=BOARD, fps=fps, process=finn)
    return {
        "fps": fps,
        "hardware layers": len(accelerator.graph),
        "tables ms": 1e3 * tables_s,
        "us a candidate": 1e6 * float(np.median(spent)) / settings["population"],
        "us with tables": 1e6 * (tables_s + sum(spent)) / (settings["population"] * len(populations)),
        "FINN s": time.perf_counter() - started,
    }


def draw(searchable: SearchableModel, settings: Settings) -> list[np.ndarray[Any, Any]]:
    """Populations of widths from 2 to 8 bits."""
    generator = np.random.default_rng(0)
    shape = (settings["generations"], settings["population"], len(searchable.profile))
    return list(generator.integers(2, 9, shape))


def seconds(accelerator: Accelerator, population: np.ndarray[Any, Any]) -> float:
    started = time.perf_counter()
    accelerator.cost(population)
    return time.perf_counter() - started


def saving_row(searchable: SearchableModel, fps: float) -> dict[str, Any]:
    bits = searchable.space.bits(searchable.allocation)[None]
    theirs = cost(searchable, fps, "finn", bits)
    # The most frames a second that are no more than FINN's folding reaches.
    ours = cost(searchable, 1e8 // theirs.cycles[0], "cheapest", bits)
    board = Target(board=BOARD).device
    share = float(board_share(ours.resources, board)[0] / board_share(theirs.resources, board)[0])
    names = ("lut", "bram_18k", "uram", "dsp")
    return {
        "fps": fps,
        "fps of FINN's": 1e8 / float(theirs.cycles[0]),
        "fps of ours": 1e8 / float(ours.cycles[0]),
        "most fps of ours": 1e8 / float(cost(searchable, fps, "cheapest", bits).cycles[0]),
        **{f"{n} FINN": float(getattr(theirs.resources, n)[0]) for n in names},
        **{n: float(getattr(ours.resources, n)[0]) for n in names},
        "share of FINN's": share,
    }


def cost(searchable: SearchableModel, fps: float, folding: Any, bits: np.ndarray[Any, Any]) -> PopulationCost:
    return Accelerator.of(searchable.profile, Target(board=BOARD, fps=fps, folding=folding)).cost(bits)


def twenty_layers() -> nn.Module:
    """Nineteen convolutions, four of them with a stride, and a linear layer."""
    layers, inputs = [entry()], 3
    for index in range(19):
        outputs = 16 * 2 ** (index // 5)
        layers += block(inputs, outputs, 4, 4, stride=2 if index in (4, 8, 12, 16) else 1)
        inputs = outputs
    head = qnn.QuantLinear(inputs * 4, 10, bias=True, weight_bit_width=4)
    return nn.Sequential(*layers, nn.Flatten(), head)


if __name__ == "__main__":
    run_benchmark(
        "finn_cost_time",
        measure,
        settings={
            "networks": [
                *("20 layers", "plain", "residual", "perceptron", "mobilenet", "tfc_1w2a", "tfc_2w2a"),
                *("cnv_1w2a", "cnv_2w2a"),
            ],
            "timed": ["20 layers", "plain"],
            "fps": [1000, 30_000],
            "population": 64,
            "generations": 30,
        },
        quick={"networks": ["20 layers"], "fps": [1000], "generations": 5},
    )
