"""Whether FINN builds what a search may return, and computes the same.

Allocations are drawn at random from the space of gfb_integrations.finn.make_searchable (2 to 8 bits) and from
the unrestricted one (1 to 16 bits), for three networks with random weights. Each is frozen, exported,
estimated and executed after every stage of FINN's flow on random samples.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _finn_models import NETWORKS, trained
from _harness import Figures, Settings, run_benchmark

import gfb_brevitas as gfb
from gfb_brevitas.errors import GfbError
from gfb_integrations.finn import FinnProcess, estimate, make_searchable, verify
from gfb_integrations.qonnx import export_qonnx


def measure(settings: Settings) -> Figures:
    rows = []
    with FinnProcess() as finn:
        for name in settings["networks"]:
            for restricted in (True, False):
                rows.append(row(name, restricted, settings, finn))
    restricted_rows = [r for r in rows if r["restricted"]]
    return {
        "networks": rows,
        "failed_restricted": sum(r["failed"] + r["different"] for r in restricted_rows),
        "max_integer_difference": max(r["largest integer difference"] for r in restricted_rows),
        "failed_unrestricted": sum(r["failed"] + r["different"] for r in rows if not r["restricted"]),
    }


def row(name: str, restricted: bool, settings: Settings, finn: FinnProcess) -> dict[str, Any]:
    model, x = trained(NETWORKS[name], samples=settings["samples"])
    if restricted:
        searchable = make_searchable(model, x[:1])
    else:
        searchable = gfb.make_searchable(model, x[:1], bits=(1, 16))
    searchable.calibrate([x])
    rng = np.random.default_rng(0)
    space = searchable.space
    failed = different = largest = 0
    reasons: set[str] = set()
    for _ in range(settings["allocations"]):
        vector = rng.uniform(space.lower, space.upper)
        frozen = searchable.freeze(space.allocation(space.decode(vector[None])[0]))
        try:
            steps = largest_difference(frozen, x, settings, finn)
            different += steps > 0
            largest = max(largest, steps)
        except GfbError as error:
            failed += 1
            reasons.add(f"{getattr(error, 'stage', type(error).__name__)}")
    return {
        "network": name,
        "restricted": restricted,
        "allocations": settings["allocations"],
        "failed": failed,
        "different": different,
        "largest integer difference": largest,
        "failed at": ", ".join(sorted(reasons)),
    }


def largest_difference(model: torch.nn.Module, x: torch.Tensor, settings: Settings, finn: FinnProcess) -> int:
    """Of all stages, in steps of the output."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_qonnx(model, x[:1], path)
        estimate(path, board=settings["board"], fps=settings["fps"], process=finn)
        found = verify(path, x, model=model, process=finn)
    return max(stage.max_diff_steps or 0 for stage in found.stages) or int(not found.exact)


if __name__ == "__main__":
    run_benchmark(
        "finn_buildable",
        measure,
        settings={
            "networks": ["plain", "residual", "perceptron"],
            "allocations": 10,
            "samples": 4,
            "board": "Pynq-Z1",
            "fps": 1000,
        },
        quick={"networks": ["perceptron"], "allocations": 2},
    )
