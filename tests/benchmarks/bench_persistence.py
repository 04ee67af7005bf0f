"""What a candidate costs beside its evaluation: asking, telling and storing, per storage.

``ms_per_trial`` is the search time that a trial at ``parameters`` parameters adds, up to the end of the
flush after a step; once with evaluations that take no time, and once with some real work for every
candidate, of which the time is subtracted. ``stock_ms_per_trial`` is Optuna's own CmaEsSampler in the same
storage. PostgreSQL is a private server on this machine, or that of ``GFB_POSTGRES_URL``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from _harness import Figures, Settings, run_benchmark

sys.path.insert(0, str(Path(__file__).parents[2]))

from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import MeanActivationBits, WeightSize
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.search.study import StepStudy, make_sampler
from gfb_brevitas.search.trial_writer import TrialWriter
from gfb_brevitas.space import Bits, SearchSpace
from tests.core.costs.small_profiles import product, quantizer
from tests.core.search.databases import NoPostgresql, make_storage, postgresql

SETTINGS = {"parameters": 44, "trials": 240, "stock_trials": 8, "repeats": 7, "work_ms": 5.0}
QUICK = {"trials": 30, "stock_trials": 4, "repeats": 1, "work_ms": 1.0}

Evaluation = Callable[[Bits], np.ndarray[Any, Any]]


def constraints_over(parameters: int) -> Constraints:
    """Two budgets over as many quantizers, weights and activations in turn."""
    layers = parameters // 2
    quantizers = [
        quantizer(f"layer{i}.{kind}", kind, 1000 + i)
        for i in range(layers)
        for kind in ("weight", "activation")
    ]
    products = [
        product(f"layer{i}", 1000, (f"layer{i}.activation",), (f"layer{i}.weight",)) for i in range(layers)
    ]
    profile = ModelProfile(quantizers=tuple(quantizers), products=tuple(products), constant_weight_bits=0.0)
    costs = ((WeightSize(), 20.0), (MeanActivationBits(), 0.5))
    budgets = [Budget(cost=cost, beta=0.9, uniform_bits=4, rho=rho) for cost, rho in costs]
    return Constraints(SearchSpace(profile), budgets)


def no_work(bits: Bits) -> np.ndarray[Any, Any]:
    """A loss that costs nothing."""
    return 3.0 - 0.1 * bits.mean(axis=1)


class Work:
    """As :func:`no_work`, with matrix products that take about so long for every candidate."""

    def __init__(self, milliseconds: float) -> None:
        self._matrix = torch.randn(256, 256)
        self._products = 10
        self._products = max(1, round(10 * milliseconds / 1e3 / statistics.median(self._times(50))))

    def __call__(self, bits: Bits) -> np.ndarray[Any, Any]:
        self._times(len(bits))
        return no_work(bits)

    def seconds_alone(self, candidates: int) -> float:
        """Seconds of so many candidates with nothing else going on."""
        return sum(self._times(candidates))

    def _times(self, candidates: int) -> list[float]:
        times = []
        for _ in range(candidates):
            began = time.perf_counter()
            for _ in range(self._products):
                self._matrix @ self._matrix
            times.append(time.perf_counter() - began)
        return times


def our_seconds(constraints: Constraints, place: str, trials: int, evaluate: Evaluation, seed: int) -> float:
    """Seconds of a step of so many trials."""
    space = constraints.space
    start = space.bits(space.uniform(4))
    sampler = make_sampler(space, start, step_size=0.5, population_size=15, seed=seed)
    writer = TrialWriter(make_storage(place, pooled=True))
    name = f"ours-{time.time_ns()}"
    study = StepStudy(constraints, sampler, name=name, writer=writer)
    began = time.perf_counter()
    with writer.flushed():
        for _ in range(trials // 15):
            asked, bits = study.ask(15)
            study.tell(asked, bits, evaluate(bits))
    seconds = time.perf_counter() - began
    if place != "memory":
        stored = optuna.load_study(study_name=name, storage=make_storage(place)).trials
        if [trial.number for trial in stored] != list(range(trials)):
            raise RuntimeError(f"{len(stored)} of {trials} trials are in {place}")
    return seconds


def stock_seconds(parameters: int, place: str, trials: int, seed: int) -> float:
    """Seconds of so many trials of Optuna's CMA-ES."""
    sampler = optuna.samplers.CmaEsSampler(seed=seed)
    study = optuna.create_study(storage=make_storage(place, pooled=True), sampler=sampler)
    began = time.perf_counter()
    for _ in range(trials):
        trial = study.ask()
        values = [trial.suggest_float(f"layer{i}", 1.0, 3.0) for i in range(parameters)]
        study.tell(trial, float(np.mean(values)))
    return time.perf_counter() - began


def row_of(settings: Settings, name: str, place: Callable[[], str]) -> Figures:
    """One storage's row; medians of the repeats, ours and stock in turn."""
    constraints = constraints_over(settings["parameters"])
    trials, work = settings["trials"] // 15 * 15, Work(settings["work_ms"])
    our_seconds(constraints, place(), 45, no_work, seed=0)
    stock_seconds(settings["parameters"], place(), 2, seed=0)
    idle, beside, alone, stock = [], [], [], []
    for seed in range(settings["repeats"]):
        idle.append(our_seconds(constraints, place(), trials, no_work, seed) / trials)
        alone.append(work.seconds_alone(trials) / trials)
        beside.append(our_seconds(constraints, place(), trials, work, seed) / trials - alone[-1])
        seconds = stock_seconds(settings["parameters"], place(), settings["stock_trials"], seed)
        stock.append(seconds / settings["stock_trials"])
    ours, baseline = 1e3 * statistics.median(idle), 1e3 * statistics.median(stock)
    return {
        "storage": name,
        "ms_per_trial": ours,
        "ms_per_trial_beside_work": 1e3 * statistics.median(beside),
        "work_ms": 1e3 * statistics.median(alone),
        "stock_ms_per_trial": baseline,
        "ratio": baseline / ours,
    }


def _places(stack: ExitStack) -> Iterator[tuple[str, Callable[[], str]]]:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    yield "memory", lambda: "memory"
    yield "SQLite", lambda: f"sqlite:///{folder}/{time.time_ns()}.db"
    yield "journal file", lambda: f"journal:///{folder}/{time.time_ns()}.log"
    url = stack.enter_context(postgresql())
    yield "PostgreSQL", lambda: url


def measure(settings: Settings) -> Figures:
    """All storages."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    figures: Figures = {"storages": []}
    with ExitStack() as stack:
        try:
            for name, place in _places(stack):
                figures["storages"].append(row_of(settings, name, place))
        except NoPostgresql as reason:
            figures["without_postgresql"] = str(reason)
    return figures


if __name__ == "__main__":
    run_benchmark("persistence", measure, settings=SETTINGS, quick=QUICK)
