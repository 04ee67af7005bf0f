"""Rate of evaluating candidates on trained networks: against the float model and stock Brevitas.

Rates are of one batch, forward and loss; medians over rounds in which everything runs once in turn. An
evaluator gets new candidates in every round, drawn around 4 bits as CMA-ES draws them. Whole searches, with
preparation, checks and everything else in them, are measured beside: ``search_vs_reference`` is the time of
one with the evaluator ``auto`` by the time of one with the reference, ``end_to_end_vs_float`` its candidates
against forward passes of the float model, ``active`` the share of searches in which the fast evaluator stayed
on. Real data and weights are looked for in ``--data`` (see _trained_networks.py).
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _harness import Figures, Settings, run_benchmark
from _trained_networks import TRAINED, Batch, MissingDataError, Trained, TrainedNetwork, arguments, loss
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.evaluation import SuperBatch, make_evaluator, register_evaluator
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.prepared import integer_products_available


def measure(settings: Settings) -> Figures:
    """One row per network and kind of BatchNorm statistics."""
    device = torch.device(settings["device"])
    rates, missing = [], []
    for name in settings["networks"].split(","):
        network = TRAINED[name]
        try:
            trained = network.load(Path(settings["data"]), settings["batch_size"] or network.batch_size)
        except MissingDataError as error:
            missing.append({"model": name, "missing": str(error)})
            print(error, flush=True)
            continue
        trained = _placed(trained, network, device)
        for batchnorm in ("running", "batch") if network.has_batchnorm else ("running",):
            row = _rates(network, trained, batchnorm, settings)
            row |= _searches(trained, batchnorm, row, settings)
            print(row, flush=True)
            rates.append(row)
    figures = {"device": _device_name(device), "threads": torch.get_num_threads(), "rates": rates}
    return figures | ({"not_measured": missing} if missing else {})


def _fast_ones(device: torch.device) -> list[str]:
    integers = device.type == "cpu" and integer_products_available()
    return ["prepared", *(["integer"] if integers else [])]


def _rates(network: TrainedNetwork, trained: Trained, batchnorm: Any, settings: Settings) -> dict[str, Any]:
    model, batch = trained.model, trained.batches[0]
    device = batch[1].device
    rng = np.random.default_rng(0)
    evaluators = {n: make_evaluator(n, model, loss, batchnorm) for n in ("reference", *_fast_ones(device))}
    window = SuperBatch.of([batch])
    preparation = {}
    for name, evaluator in evaluators.items():
        started = time.perf_counter()
        evaluator.losses(_candidates(model, rng, 1), window)
        preparation[name] = time.perf_counter() - started
    count = settings["candidates"]
    times: dict[str, list[float]] = {name: [] for name in ("float", "brevitas", *evaluators)}
    losses: dict[str, list[float]] = {name: [] for name in evaluators}
    for round_number in range(settings["rounds"] + 1):
        rows = _candidates(model, rng, count)
        calls: dict[str, Callable[[], Any]] = {
            "float": partial(_plain, trained.float_model, batch),
            "brevitas": partial(_plain, trained.brevitas_model, batch),
            **{name: partial(e.losses, rows, window) for name, e in evaluators.items()},
        }
        for name, call in calls.items():
            seconds, result = _timed(call, device)
            if round_number >= 1:
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
    inputs = arguments(batch)
    equal = []
    with inference_only(model, batchnorm), evaluator._forward.active():
        for row in _candidates(model, rng, 8):
            model.set_bits(row)
            same = model(*inputs).argmax(-1) == model.model(*inputs).argmax(-1)
            equal.append(float(same.float().mean()))
    return float(np.mean(equal))


# --- whole searches -------------------------------------------------------------------------------

_made: list[Any] = []


def _observed(name: str) -> str:
    """The name of an evaluator like ``name`` that is put into ``_made``."""

    def make(*arguments: Any) -> Any:
        _made.append(make_evaluator(name, *arguments))
        return _made[-1]

    register_evaluator(f"observed {name}", make)
    return f"observed {name}"


def _searches(trained: Trained, batchnorm: Any, rates: dict[str, Any], settings: Settings) -> dict[str, Any]:
    search = partial(_search, trained, batchnorm, settings)
    pairs = [(search("reference", seed), search("auto", seed)) for seed in range(settings["repeats"])]
    reference_s, auto_s = (median(pair[place][1] for pair in pairs) for place in (0, 1))
    fast = _observed(rates["evaluator"])
    active = []
    for seed in range(settings["seeds"]):
        _made.clear()
        search(fast, seed)
        active.append(all(map(_stayed_on, _made)))
    return {
        "same_allocation": all(one[0] == other[0] for one, other in pairs),
        "active": sum(active) / len(active),
        "search_vs_reference": auto_s / reference_s,
        "end_to_end_vs_float": settings["search_evaluations"] * rates["float_ms"] / 1e3 / auto_s,
        "search_s": auto_s,
        "reference_search_s": reference_s,
    }


def _stayed_on(evaluator: Any) -> bool:
    """Whether neither a check nor an obstacle made the model itself run, or a slower program."""
    return not any(note.startswith(("The model runs", "A program")) for note in evaluator.fallbacks)


def _search(
    trained: Trained, batchnorm: Any, settings: Settings, evaluator: str, seed: int
) -> tuple[dict[str, int], float]:
    model = copy.deepcopy(trained.model)
    started = time.perf_counter()
    result = gfb.fit(
        model,
        loss=loss,
        train_batches=trained.batches,
        validation_batches=trained.batches[:1],
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
            seed=seed,
        ),
        calibrate=False,
    )
    return dict(result.allocation), time.perf_counter() - started


def _placed(trained: Trained, network: TrainedNetwork, device: torch.device) -> Trained:
    def batch_on(batch: Batch) -> Batch:
        inputs, labels = batch
        moved = tuple(map(place, inputs)) if isinstance(inputs, tuple) else place(inputs)
        return moved, labels.to(device)

    def place(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device)
        is_image = network.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=torch.channels_last) if is_image else tensor

    def model_on(model: nn.Module) -> nn.Module:
        model = model.to(device).eval()
        return model.to(memory_format=torch.channels_last) if network.channels_last else model

    return Trained(
        float_model=model_on(trained.float_model),
        brevitas_model=model_on(trained.brevitas_model),
        model=trained.model.to(device),
        batches=[batch_on(batch) for batch in trained.batches],
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    run_benchmark(
        "evaluation",
        measure,
        settings={
            "networks": ",".join(TRAINED),
            "data": os.environ.get("GFB_DATA", "data"),
            "batch_size": 0,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "rounds": 9,
            "candidates": 8,
            "search_evaluations": 60,
            "repeats": 3,
            "seeds": 5,
            "method": "cma-es",
        },
        quick={
            "batch_size": 8,
            "rounds": 1,
            "candidates": 2,
            "search_evaluations": 15,
            "repeats": 1,
            "seeds": 1,
        },
        options={
            "networks": f"which, separated by commas, of {', '.join(TRAINED)}",
            "data": "folder of CIFAR-10, its weights and ImageNet's images",
        },
    )
