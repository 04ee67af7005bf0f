"""Time to reach an objective: this project against stock Brevitas, Optuna's CMA-ES and SQLite.

Both start from one trained residual network (that of examples/fashion_mnist.py, trained at 4 bits) and
search the same widths (2 to 8 bits) by the same objective: the mean loss over the same minibatches plus the
same penalty. The stock search has its number of trials; the time counted for this project is that until its
best objective value is as good as the stock search's last best one. It includes making the model searchable,
calibrating, capturing, and writing every trial to SQLite too. Each search runs in a process of its own;
memory is that process's peak.

The data is looked for in the folder GFB_FASHION_MNIST (default data/fashion_mnist), and downloaded into it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
import torch
import torch.nn.functional as F
from _harness import Figures, Settings, run_benchmark
from _stock_search import stock_model, stock_search
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.constraints import Constraints

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from fashion_mnist import fashion_data

BITS = (2, 8)
RHO = 20.0


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def measure(settings: Settings) -> Figures:
    """One row per seed; the speedup is the median of the rows."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "trained.pt"
        _alone(_train, settings, state)
        for seed in range(settings["seeds"]):
            stock = _alone(_stock, settings, state, seed)
            ours = _alone(_ours, settings, state, seed, stock["objective"])
            row = {
                "seed": seed,
                "objective": stock["objective"],
                "stock_s": stock["seconds"],
                "ours_s": ours["seconds"],
                "speedup": stock["seconds"] / ours["seconds"] if ours["reached"] else None,
                "stock_trials": settings["trials"],
                "our_evaluations": ours["evaluations"],
                "our_objective": ours["objective"],
                "memory_ratio": ours["memory_mb"] / stock["memory_mb"],
                "stock_memory_mb": stock["memory_mb"],
                "our_memory_mb": ours["memory_mb"],
            }
            print(row, flush=True)
            rows.append(row)
    return {
        "speedup": median(row["speedup"] or 0.0 for row in rows),
        "memory_ratio": median(row["memory_ratio"] for row in rows),
        "searches": rows,
    }


def _alone(function: Any, *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _batches(settings: Settings) -> list[tuple[Tensor, Tensor]]:
    folder = Path(os.environ.get("GFB_FASHION_MNIST", "data/fashion_mnist"))
    images, labels = fashion_data(folder, settings["train_samples"], 100).train
    return list(zip(images.split(128), labels.split(128), strict=True))


def _names(model: nn.Module) -> list[str]:
    return list(gfb.make_searchable(model, torch.zeros(2, 1, 28, 28), bits=BITS).profile.names)


def _uniform(bits: int) -> dict[str, int]:
    return dict.fromkeys(_names(stock_model(_Always(8))), bits)


class _Always(dict[str, int]):
    def __init__(self, bits: int) -> None:
        super().__init__()
        self._bits = bits

    def __missing__(self, name: str) -> int:
        return self._bits


def _train(settings: Settings, path: Path) -> None:
    torch.manual_seed(0)
    model = stock_model(_Always(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(settings["epochs"]):
        for batch in _batches(settings)[:-1]:
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
    torch.save(model.state_dict(), path)


def _stock(settings: Settings, path: Path, seed: int) -> dict[str, Any]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    state = torch.load(path, weights_only=True)
    space = gfb.make_searchable(stock_model(_Always(4)), torch.zeros(2, 1, 28, 28), bits=BITS).space
    constraints = Constraints(space, gfb.paper_budgets(settings["uniform_bits"], rho=RHO))
    values: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        stock_search(
            state,
            list(space.profile.names),
            _batches(settings)[: settings["minibatches"]],
            lambda bits: float(constraints.penalty(np.array([list(bits.values())]))[0]),
            trials=settings["trials"],
            seed=seed,
            storage=f"sqlite:///{folder}/study.db",
            on_trial=values.append,
        )
        seconds = time.perf_counter() - started
    return {"objective": min(values), "seconds": seconds, "memory_mb": _peak_memory_mb()}


class _Reached(gfb.Callback):
    def __init__(self, target: float, started: float) -> None:
        self.target, self.started = target, started
        self.seconds = self.best = float("inf")
        self.evaluations = 0

    def on_generation(self, record: Any) -> None:
        self.best = min(self.best, record.best_value)
        if self.best <= self.target and self.seconds == float("inf"):
            self.seconds = time.perf_counter() - self.started
            self.evaluations = record.evaluations


def _ours(settings: Settings, path: Path, seed: int, target: float) -> dict[str, Any]:
    state = torch.load(path, weights_only=True)
    batches = _batches(settings)[: settings["minibatches"]]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trained = stock_model(_Always(4))
        trained.load_state_dict(state)
        model = gfb.make_searchable(trained.eval(), batches[0][0][:2], bits=BITS)
        reached = _Reached(target, started)
        gfb.fit(
            model,
            loss=loss,
            train_batches=batches,
            budgets=gfb.paper_budgets(settings["uniform_bits"], rho=RHO),
            search=gfb.SearchConfig(
                rounds=1,
                steps_per_round=1,
                evaluations_per_step=settings["trials"],
                epochs_per_round=0,
                super_batch_size=settings["minibatches"],
                super_batch="fixed",
                batchnorm="running",
                seed=seed,
            ),
            storage=f"sqlite:///{folder}/study.db",
            callbacks=[reached],
        )
        whole = time.perf_counter() - started
    was_reached = reached.seconds < float("inf")
    return {
        "reached": was_reached,
        "seconds": reached.seconds if was_reached else whole,
        "evaluations": reached.evaluations,
        "objective": reached.best,
        "memory_mb": _peak_memory_mb(),
    }


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    run_benchmark(
        "end_to_end",
        measure,
        settings={
            "seeds": 3,
            "trials": 1024,
            "uniform_bits": 3,
            "train_samples": 6_000,
            "epochs": 5,
            "minibatches": 4,
        },
        quick={"seeds": 1, "trials": 30, "train_samples": 1_024, "epochs": 1, "minibatches": 1},
    )
