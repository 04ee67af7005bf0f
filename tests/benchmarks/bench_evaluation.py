"""Rate of evaluating candidates: the evaluators against the float model and stock Brevitas.

Times are of one batch, forward and loss; medians over rounds in which everything runs once in turn. An
evaluator gets new candidates in every round, drawn around 4 bits as CMA-ES draws them. What is prepared once
per gradient-free step is reported apart (preparation_s).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _harness import Figures, Settings, run_benchmark
from _networks import NETWORKS, Network
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.evaluation import SuperBatch, make_evaluator
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.prepared import integer_products_available

Batch = tuple[Any, Tensor]


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy."""
    inputs = batch[0] if isinstance(batch[0], tuple) else (batch[0],)
    return F.cross_entropy(model(*inputs), batch[1])


def measure(settings: Settings) -> Figures:
    """One row per network and kind of BatchNorm statistics."""
    device = torch.device(settings["device"])
    rates = []
    for name in settings["networks"]:
        network = NETWORKS[name]
        torch.manual_seed(0)
        batch = _on(network.make_batch(), device, network)
        model = _trained(network, batch, settings["training_steps"])
        has_batchnorm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        for batchnorm in ("running", "batch") if has_batchnorm else ("running",):
            row = _rates(network, model, batch, batchnorm, settings)
            row |= _search(network, batch, batchnorm, settings)
            print(row, flush=True)
            rates.append(row)
    return {"device": _device_name(device), "threads": torch.get_num_threads(), "rates": rates}


def _names(device: torch.device) -> list[str]:
    integers = device.type == "cpu" and integer_products_available()
    return ["reference", "prepared", *(["integer"] if integers else [])]


def _rates(
    network: Network, model: SearchableModel, batch: Batch, batchnorm: Any, settings: Settings
) -> dict[str, Any]:
    device = batch[1].device
    rng = np.random.default_rng(0)
    float_model = _placed(network.make_float(), network, device)
    brevitas_model = _placed(network.make_brevitas(), network, device)
    evaluators = {name: make_evaluator(name, model, loss, batchnorm) for name in _names(device)}
    window = SuperBatch.of([batch])
    preparation = {}
    for name, evaluator in evaluators.items():
        started = time.perf_counter()
        evaluator.losses(_candidates(model, rng, 1), window)
        preparation[name] = time.perf_counter() - started
    count = settings["candidates"]
    times: dict[str, list[float]] = {name: [] for name in ("float", "brevitas", *evaluators)}
    losses: dict[str, list[float]] = {name: [] for name in evaluators}
    for round_number in range(settings["rounds"] + 2):
        rows = _candidates(model, rng, count)
        calls: dict[str, Callable[[], Any]] = {
            "float": partial(_plain, float_model, batch),
            "brevitas": partial(_plain, brevitas_model, batch),
            **{name: partial(e.losses, rows, window) for name, e in evaluators.items()},
        }
        for name, call in calls.items():
            seconds, result = _timed(call, device)
            if round_number >= 2:
                times[name].append(seconds / (count if name in evaluators else 1))
                if name in evaluators:
                    losses[name] += result.tolist()
    middle = {name: median(values) for name, values in times.items()}
    fastest = min((n for n in evaluators if n != "reference"), key=middle.__getitem__)
    errors = np.abs(np.array(losses[fastest]) / np.array(losses["reference"]) - 1)
    return {
        "model": network.name,
        "batchnorm": batchnorm,
        "evaluator": fastest,
        "rate_vs_float": middle["float"] / middle[fastest],
        "rate_vs_brevitas": middle["brevitas"] / middle[fastest],
        "rate_vs_reference": middle["reference"] / middle[fastest],
        "prepared_rate_vs_float": middle["float"] / middle["prepared"],
        "loss_rel_err": float(np.median(errors)),
        "loss_rel_err_max": float(errors.max()),
        "argmax_agreement": _agreement(model, evaluators[fastest], batch, batchnorm, rng),
        "float_ms": 1e3 * middle["float"],
        "preparation_s": preparation[fastest],
    }


def _plain(model: nn.Module, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return loss(model, batch)


def _timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def _candidates(model: SearchableModel, rng: np.random.Generator, count: int) -> np.ndarray:
    logarithms = 2 + 0.5 * rng.standard_normal((count, len(model.profile)))
    low = [info.min_bits for info in model.profile]
    high = [info.max_bits for info in model.profile]
    return np.clip(np.rint(2**logarithms), low, high).astype(np.int64)


def _agreement(
    model: SearchableModel, evaluator: Any, batch: Batch, batchnorm: Any, rng: np.random.Generator
) -> float:
    inputs = batch[0] if isinstance(batch[0], tuple) else (batch[0],)
    equal = []
    with inference_only(model, batchnorm), evaluator._forward.active():
        for row in _candidates(model, rng, 16):
            model.set_bits(row)
            same = model(*inputs).argmax(-1) == model.model(*inputs).argmax(-1)
            equal.append(float(same.float().mean()))
    return float(np.mean(equal))


def _search(network: Network, batch: Batch, batchnorm: Any, settings: Settings) -> dict[str, Any]:
    chosen = {}
    for evaluator in ("reference", "auto"):
        torch.manual_seed(0)
        model = _trained(network, batch, settings["training_steps"])
        started = time.perf_counter()
        result = gfb.fit(
            model,
            loss=loss,
            train_batches=[batch],
            validation_batches=[batch],
            budgets=gfb.paper_budgets(4, rho=20.0),
            search=gfb.SearchConfig(
                rounds=1,
                steps_per_round=1,
                evaluations_per_step=settings["search_evaluations"],
                epochs_per_round=0,
                super_batch_size=1,
                batchnorm=batchnorm,
                method=settings["method"],
                evaluator=evaluator,
            ),
            calibrate=False,
        )
        chosen[evaluator] = (dict(result.allocation), time.perf_counter() - started)
    return {
        "same_allocation": chosen["reference"][0] == chosen["auto"][0],
        "search_s": chosen["auto"][1],
        "reference_search_s": chosen["reference"][1],
    }


def _trained(network: Network, batch: Batch, steps: int) -> SearchableModel:
    """Calibrated, and trained on the batch until its statistics mean something."""
    inputs = batch[0] if isinstance(batch[0], tuple) else (batch[0],)
    model = gfb.make_searchable(network.make_brevitas().to(batch[1].device), inputs, bits=(1, 8))
    model.set_bits([max(4, info.min_bits) for info in model.profile])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        if step == min(2, steps - 1):
            model.calibrate([batch], forward=lambda b: loss(model, b))
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    return model.eval()


def _placed(model: nn.Module, network: Network, device: torch.device) -> nn.Module:
    model = model.to(device).eval()
    return model.to(memory_format=torch.channels_last) if network.channels_last else model


def _on(batch: Batch, device: torch.device, network: Network) -> Batch:
    def place(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device)
        is_image = network.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor

    inputs, labels = batch
    return (tuple(map(place, inputs)) if isinstance(inputs, tuple) else place(inputs)), place(labels)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    run_benchmark(
        "evaluation",
        measure,
        settings={
            "networks": ["resnet20", "mobilenet", "transformer", "lstm", "gnn"],
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "rounds": 9,
            "candidates": 8,
            "training_steps": 12,
            "search_evaluations": 60,
            "method": "cma-es",
        },
        quick={
            "networks": ["lstm"],
            "rounds": 2,
            "candidates": 2,
            "training_steps": 2,
            "search_evaluations": 15,
        },
    )
