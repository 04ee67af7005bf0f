"""What the processes of bench_distributed do; torchrun gives them the settings and a file for figures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
from torch import Tensor, nn

from gfb_brevitas import SearchableModel, TrainingConfig, make_searchable
from gfb_brevitas.distributed import SharedEvaluator, World, is_first_process, joined_world
from gfb_brevitas.distributed.world import working_in
from gfb_brevitas.evaluation import SuperBatch, make_evaluator
from gfb_brevitas.search.checkpoint import model_state
from gfb_brevitas.search.training import Trainer

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from digits import digits_experiment
from experiment import cross_entropy

Figures = dict[str, Any]


class Residual(nn.Module):
    """Two convolutions with BatchNorm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            qnn.QuantConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            qnn.QuantReLU(return_quant_tensor=True),
            qnn.QuantConv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else qnn.QuantConv2d(inputs, outputs, 1, stride=stride, bias=False)
        )
        self.relu = qnn.QuantReLU(return_quant_tensor=True)

    def forward(self, x: Any) -> Any:
        return self.relu(self.layers(x) + self.shortcut(x))


def residual_network() -> SearchableModel:
    """ResNet20's shapes for images of 32x32."""
    torch.manual_seed(0)
    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        qnn.QuantReLU(return_quant_tensor=True),
        *(Residual(*width) for width in widths),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        qnn.QuantLinear(64, 10, bias=True),
    )
    searchable = make_searchable(model, torch.randn(2, 3, 32, 32))
    searchable.calibrate(images(2, 16))
    return searchable


def images(batches: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 32, 32, generator=generator),
            torch.randint(10, (size,), generator=generator),
        )
        for _ in range(batches)
    ]


def in_turn(world: World, repeats: int, *works: Callable[[], Any]) -> list[float]:
    """Median seconds of works that all processes begin together and wait for the end of."""
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 1):
        for took, work in zip(times, works, strict=True):
            world.meet("beginning")
            began = time.perf_counter()
            work()
            world.meet("end")
            if repeat:
                took.append(time.perf_counter() - began)
    return [median(took) for took in times]


def candidates(quantizers: int, count: int, seed: int) -> Iterator[Any]:
    """Generations that were never seen before."""
    rng = np.random.default_rng(seed)
    while True:
        yield rng.integers(2, 9, size=(count, quantizers))


def candidate_row(world: World, name: str, settings: Figures) -> Figures:
    """Candidates per second, of one process and of all."""
    model = residual_network()
    count = settings["candidates"]
    super_batch = SuperBatch.of(images(settings["minibatches"], settings["batch_size"]))
    own, part, inner = (make_evaluator(name, model, cross_entropy, "batch") for _ in range(3))
    shared = SharedEvaluator(inner, world)
    mine, parts, ours = (candidates(len(model.profile), count, seed) for seed in range(3))
    one, apart, all_of_them = in_turn(
        world,
        settings["repeats"],
        lambda: own.losses(next(mine), super_batch) if world.is_first else None,
        lambda: part.losses(next(parts)[world.rank :: world.size], super_batch),
        lambda: shared.losses(next(ours), super_batch),
    )
    return {
        "evaluator": name,
        "ms_per_candidate": 1e3 * one / count,
        "candidates_per_second_of_one": count / one,
        "candidates_per_second_of_all": count / all_of_them,
        "scaling": one / all_of_them,
        "scaling_without_exchange": one / apart,
    }


def training_row(world: World, settings: Figures) -> Figures:
    """Milliseconds of a training step of one process and of all."""
    config = TrainingConfig(optimizer="sgd", learning_rate=0.001, schedule="constant")
    data = images(settings["steps"], settings["batch_size"])
    own_part = [tuple(part[world.rank :: world.size] for part in batch) for batch in data]
    ours = Trainer(residual_network(), cross_entropy, config, epochs=1, seed=0)
    with working_in(World()):
        mine, part = (Trainer(residual_network(), cross_entropy, config, epochs=1, seed=0) for _ in range(2))
    one, apart, all_of_them = in_turn(
        world,
        settings["repeats"],
        lambda: mine.run_epoch(data, 0) if world.is_first else None,
        lambda: part.run_epoch(own_part, 0),
        lambda: ours.run_epoch(data, 0),
    )
    return {
        "ms_per_step_of_one": 1e3 * one / settings["steps"],
        "ms_per_step_of_all": 1e3 * all_of_them / settings["steps"],
        "scaling": one / all_of_them,
        "scaling_without_exchange": one / apart,
    }


def relative_deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in multiples of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


def search(seed: int, *, data_parallel: bool, nudge: float = 0.0) -> tuple[Any, ...]:
    """A search on the digits: allocation, validation accuracy, training losses and weights.

    Args:
        seed: Of everything.
        data_parallel: Whether each process trains on a part of every batch.
        nudge: Relative size of a random change of the first weights.
    """
    experiment = digits_experiment(seed, quick=True)

    def nudged() -> nn.Module:
        model = experiment.make_model()
        with torch.no_grad():
            for parameter in model.parameters() if nudge else ():
                parameter.mul_(1 + nudge * torch.randn_like(parameter))
        return model

    training = replace(experiment.training, data_parallel=data_parallel)
    result, _ = replace(experiment, training=training, make_model=nudged).fit(2)
    losses = [epoch.train_loss for epoch in result.history.epochs]
    return dict(result.allocation), result.metric, losses, model_state(result.searchable)


def work(settings: Figures, file: Path) -> None:
    """Measure in all processes; the first one writes the figures and its searches."""
    torch.set_num_threads(1)
    with joined_world() as world:
        rates = [candidate_row(world, name, settings) for name in settings["evaluators"]]
        training = training_row(world, settings)
    found = {
        name: [search(seed, data_parallel=parallel) for seed in range(settings["seeds"])]
        for name, parallel in (("whole", False), ("divided", True))
    }
    if is_first_process():
        torch.save({"rates": rates, "training": training, **found}, file)


if __name__ == "__main__":
    work(json.loads(sys.argv[1]), Path(sys.argv[2]))
