"""Training steps: the searchable model and stock Brevitas against the float model.

A step is forward, loss, backward and SGD on one batch. Times are medians over rounds in which every model
makes one step in turn; the searchable model gets a new allocation before each of its steps. Brevitas is
measured after it has stopped collecting statistics, which is the cheaper of its two phases. Peak memory is
what a step allocates on top of what was there before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _harness import Figures, Settings, run_benchmark
from _networks import NETWORKS, Network
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

import gfb_brevitas as gfb
from gfb_brevitas.adapters import SearchableModel

Step = Callable[[], None]
WARM_UP = 3


def measure(settings: Settings) -> Figures:
    """One row per network."""
    device = torch.device(settings["device"])
    rows = []
    for name in settings["networks"]:
        rows.append(_row(NETWORKS[name], device, settings["rounds"]))
        print(rows[-1], flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "steps": rows}


def _row(network: Network, device: torch.device, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    inputs, labels = network.make_batch()
    arguments = tuple(
        _placed(x, network, device) for x in (inputs if isinstance(inputs, tuple) else (inputs,))
    )
    searchable = gfb.make_searchable(network.make_brevitas(), inputs)
    models = {"float": network.make_float(), "brevitas": network.make_brevitas(), "searchable": searchable}
    steps = {
        name: _step(_placed(m, network, device), arguments, labels.to(device)) for name, m in models.items()
    }
    for step in steps.values():
        step()
    models["brevitas"].apply(_end_statistics)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in steps}
    graphs = 0
    for number in range(WARM_UP + rounds):
        if number == WARM_UP:
            graphs = counters["stats"]["unique_graphs"]
        _new_allocation(searchable, rng)
        for name, step in steps.items():
            times[name].append(_seconds(step, device))
    recompiles = counters["stats"]["unique_graphs"] - graphs
    middle = {name: median(values[WARM_UP:]) for name, values in times.items()}
    peak = {name: _peak_bytes(step, device) for name, step in steps.items()}
    return {
        "model": network.name,
        "step_vs_float": middle["searchable"] / middle["float"],
        "brevitas_step_vs_float": middle["brevitas"] / middle["float"],
        "memory_vs_float": peak["searchable"] / peak["float"],
        "brevitas_memory_vs_float": peak["brevitas"] / peak["float"],
        "recompiles_after_new_allocation": recompiles,
        "float_ms": 1e3 * middle["float"],
        "float_mib": peak["float"] / 2**20,
    }


def _placed(thing: Any, network: Network, device: torch.device) -> Any:
    thing = thing.to(device)
    is_image = not isinstance(thing, Tensor) or thing.dim() == 4
    return thing.to(memory_format=torch.channels_last) if network.channels_last and is_image else thing


def _step(model: nn.Module, arguments: tuple[Tensor, ...], labels: Tensor) -> Step:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(*arguments), labels).backward()
        optimizer.step()

    return step


def _end_statistics(module: nn.Module) -> None:
    if hasattr(module, "init_scale"):
        module.init_scale()


def _new_allocation(model: SearchableModel, rng: np.random.Generator) -> None:
    model.set_bits(int(rng.integers(info.min_bits, info.max_bits + 1)) for info in model.profile)


def _seconds(step: Step, device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _peak_bytes(step: Step, device: torch.device) -> int:
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(held.max())


if __name__ == "__main__":
    run_benchmark(
        "training_step",
        measure,
        settings={
            "networks": ["resnet20", "mobilenet", "transformer", "lstm", "gnn"],
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "rounds": 9,
        },
        quick={"rounds": 1},
    )
