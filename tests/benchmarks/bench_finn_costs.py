"""Our hardware costs against FINN's own reports, node by node and network by network.

Twice: by our formulas on FINN's nodes, with its folding and its widths (mismatches: nodes of which any of
LUT, BRAM, URAM, DSP and cycles is another number); and from bit widths alone, with our own copy of its
folding and likely widths of accumulators and thresholds (node lists compared; relative error of LUT;
differences of BRAM, DSP, URAM, cycles and latency). All weights are random.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _finn_models import NETWORKS, trained
from _harness import Figures, Settings, run_benchmark

from gfb_brevitas.adapters import record_layers
from gfb_brevitas.dataflow import Accelerator, PopulationCost, Target
from gfb_brevitas.profile import ModelProfile
from gfb_integrations.finn import FinnEstimate, FinnProcess, estimate
from gfb_integrations.finn.formulas import price
from gfb_integrations.qonnx import export_qonnx


def measure(settings: Settings) -> Figures:
    rows: list[dict[str, Any]] = []
    with FinnProcess() as finn, tempfile.TemporaryDirectory() as folder:
        for name in settings["networks"]:
            model, x = trained(NETWORKS[name], samples=1)
            path = Path(folder) / f"{name}.onnx"
            export_qonnx(model, x, path)
            profile = ModelProfile(quantizers=(), layers=record_layers(model, x))
            for board, fps, standalone in configurations(name, settings):
                target = Target(board=board, fps=fps, standalone_thresholds=standalone, folding="finn")
                rows.append({"network": name, **row(path, profile, target, finn)})
                print(rows[-1], flush=True)
    return {
        "summary": summary(rows),
        "networks": rows,
        "nodes": sum(r["nodes"] for r in rows),
        "mismatches": sum(r["mismatches"] for r in rows),
        "graphs_equal": all(r["same nodes"] for r in rows),
        "lut_rel_err": max(r["LUT error"] for r in rows),
        "median_lut_rel_err": float(np.median([r["LUT error"] for r in rows])),
        "bram_dsp_mismatches": sum(r["BRAM, DSP, URAM differ"] for r in rows),
        "cycle_mismatches": sum(r["cycles differ"] for r in rows),
        "seconds_of_finn": round(sum(r["FINN s"] for r in rows), 1),
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per network, over its boards, frame rates and styles of thresholds."""
    found = []
    for name in dict.fromkeys(r["network"] for r in rows):
        own = [r for r in rows if r["network"] == name]
        errors = {
            style: [r["LUT error"] for r in own if r["thresholds"] == style]
            for style in ("fused", "standalone")
        }
        found.append(
            {
                "network": name,
                "builds": len(own),
                "nodes": sum(r["nodes"] for r in own),
                "mismatches": sum(r["mismatches"] for r in own),
                "same_nodes": all(r["same nodes"] for r in own),
                "others_differ": sum(r["BRAM, DSP, URAM differ"] + r["cycles differ"] for r in own),
                "LUT_error_fused": max(errors["fused"], default=None),
                "LUT_error_standalone": max(errors["standalone"], default=None),
            }
        )
    return found


def configurations(name: str, settings: Settings) -> list[tuple[str, float, bool]]:
    """All of them, or two for a network that takes FINN a minute and more."""
    found = list(product(settings["boards"], settings["fps"][name], (False, True)))
    return [found[0], found[-1]] if name in settings["slow"] else found


def row(path: Path, profile: ModelProfile, target: Target, finn: FinnProcess) -> dict[str, Any]:
    started = time.perf_counter()
    found = estimate(
        path,
        board=target.board,
        fps=target.fps,
        standalone_thresholds=target.standalone_thresholds,
        process=finn,
    )
    seconds = time.perf_counter() - started
    accelerator = Accelerator.of(profile, target)
    ours = accelerator.cost(np.zeros((1, 0), dtype=np.int64))
    return {
        "board": target.board,
        "fps": target.fps,
        "thresholds": "standalone" if target.standalone_thresholds else "fused",
        "nodes": len(found.nodes),
        "mismatches": sum(bool(price(node, found.part).differs_from(node)) for node in found.nodes),
        "same nodes": kinds_of(accelerator) == Counter(n.kind.rsplit("_", 1)[0] for n in found.nodes),
        **differences(ours, found),
        "FINN s": round(seconds, 2),
    }


def kinds_of(accelerator: Accelerator) -> Counter[str]:
    """FINN's names of our layers."""
    return Counter(layer.node.kind + getattr(layer.node, "operation", "") for layer in accelerator.graph)


def differences(ours: PopulationCost, found: FinnEstimate) -> dict[str, Any]:
    totals = {name: float(getattr(ours.resources, name)[0]) for name in ("lut", "bram_18k", "uram", "dsp")}
    others = [totals[name] != found.total(name) for name in ("bram_18k", "uram", "dsp")]
    cycles = [ours.cycles[0] != found.max_cycles, ours.latency_cycles[0] != found.critical_path_cycles]
    return {
        "LUT": found.total("lut"),
        "LUT error": abs(totals["lut"] - found.total("lut")) / max(found.total("lut"), 1.0),
        "BRAM, DSP, URAM differ": sum(others),
        "cycles differ": sum(bool(c) for c in cycles),
    }


if __name__ == "__main__":
    run_benchmark(
        "finn_costs",
        measure,
        settings={
            "networks": list(NETWORKS),
            "boards": ["Pynq-Z1", "ZCU104"],
            "fps": {
                name: [100, 3000] if name in ("mobilenet", "resnet18_4w4a") else [1000, 30_000]
                for name in NETWORKS
            },
            "slow": ["resnet18_4w4a"],
        },
        quick={"networks": ["plain"], "boards": ["Pynq-Z1"]},
    )
