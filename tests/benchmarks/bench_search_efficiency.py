"""How many evaluations a search needs: ours, the paper's plain CMA-ES, and Optuna's samplers.

All minimise the same thing, loss plus penalty on one super-batch of a trained network with fixed weights,
over log2 of the widths. The target of a network is the median over the seeds of what plain CMA-ES has at the
end. Evaluations that repeat count, though they are not computed twice. For ours the sensitivity estimate
counts as the evaluations that could be made in its time. A seed that does not reach the target counts as
infinitely many.

The data is looked for in the folder GFB_FASHION_MNIST (default data/fashion_mnist), and downloaded into it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import optuna
import torch
from _harness import Figures, Settings, median_seconds, run_benchmark
from _search_problems import NETWORKS, Problem, problem, trained
from experiment import cross_entropy

from gfb_brevitas.samplers import default_population_size
from gfb_brevitas.search.guided import GuidedStudy
from gfb_brevitas.search.study import StepStudy, make_sampler
from gfb_brevitas.sensitivity import SensitivityTable, estimate_sensitivity
from gfb_brevitas.space import Vector

Search = Callable[[Problem, int, int], Vector]
"""Objective values, in the order of their evaluation, of a problem, a number of evaluations and a seed."""

STEP_SIZE = 0.5


def sensitivity(problem: Problem) -> SensitivityTable | None:
    """The estimate at the widths that the network was trained at."""
    space = problem.model.space
    with problem.model.using(space.uniform(4)):
        return estimate_sensitivity(problem.model, cross_entropy, problem.super_batch, "batch")


def ours(problem: Problem, evaluations: int, seed: int) -> Vector:
    """Surrogate and sensitivity estimate: this project's default."""
    study = GuidedStudy(
        problem.constraints,
        problem.start,
        lambda: sensitivity(problem),
        name="ours",
        seed=seed,
        step_size=STEP_SIZE,
        population_size=default_population_size(len(problem.constraints.space)),
    )
    return generations(problem, study, evaluations)


def plain(problem: Problem, evaluations: int, seed: int) -> Vector:
    """The paper's CMA-ES, from the uniform widths."""
    space = problem.constraints.space
    size = default_population_size(len(space))
    sampler = make_sampler(space, problem.start, step_size=STEP_SIZE, population_size=size, seed=seed)
    return generations(problem, StepStudy(problem.constraints, sampler, name="plain"), evaluations)


def generations(problem: Problem, study: Any, evaluations: int) -> Vector:
    """Ask and tell whole generations; the last one is cut."""
    size = default_population_size(len(problem.constraints.space))
    values: list[float] = []
    while len(values) < evaluations:
        trials, bits = study.ask(size)
        values += study.tell(trials, bits, problem.losses(bits)).values.tolist()
    return np.array(values[:evaluations])


def stock(make: Callable[[int], optuna.samplers.BaseSampler]) -> Search:
    """A sampler of Optuna, as a user would use it."""

    def search(problem: Problem, evaluations: int, seed: int) -> Vector:
        space = problem.constraints.space

        def objective(trial: optuna.Trial) -> float:
            return float(problem.values(space.bits(space.suggest(trial))[None, :])[0])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(sampler=make(seed))
        study.enqueue_trial(
            dict(
                zip(
                    [c.name for c in space.free],
                    space.encode(space.allocation(problem.start)).tolist(),
                    strict=True,
                )
            )
        )
        study.optimize(objective, n_trials=evaluations)
        return np.array([trial.value for trial in study.trials])

    return search


SEARCHES: dict[str, Search] = {
    "plain CMA-ES": plain,
    "ours": ours,
    "Optuna CMA-ES": stock(lambda seed: optuna.samplers.CmaEsSampler(seed=seed)),
    "Optuna random": stock(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
    "Optuna NSGA-II": stock(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "Optuna TPE": stock(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "Optuna GP": stock(lambda seed: optuna.samplers.GPSampler(seed=seed)),
}


def measure(settings: Settings) -> Figures:
    """One row per network and sampler."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for name in settings["networks"]:
        network = NETWORKS[name]
        model = trained(network, epochs=settings["epochs"])
        rows += rows_of(name, problem(network, model), settings)
    return {"search_efficiency": rows}


def rows_of(name: str, task: Problem, settings: Settings) -> list[dict[str, Any]]:
    """The rows of a network."""
    extra = sensitivity_cost(task)
    target, rows = math.inf, []
    for sampler, search in SEARCHES.items():
        evaluations, seeds = settings["samplers"][sampler]
        curves = [np.minimum.accumulate(search(task, evaluations, seed)) for seed in range(seeds)]
        if sampler == "plain CMA-ES":
            target = median(float(curve[-1]) for curve in curves)
        added = extra if sampler == "ours" else 0.0
        needed = [needed_for(curve, target) + added for curve in curves]
        rows.append(
            {
                "model": name,
                "quantizers": len(task.model.profile),
                "sampler": sampler,
                "evaluations_to_target": finite(median(needed)),
                "target": target,
                "reached": sum(map(math.isfinite, needed)) / seeds,
                **{f"objective_{at}": objective(curves, at) for at in settings["at"]},
                "sensitivity_cost": added,
                "evaluations": evaluations,
                "seeds": seeds,
            }
        )
        print(rows[-1], flush=True)
    return rows


def needed_for(curve: Vector, target: float) -> float:
    """Evaluations until an objective value is reached."""
    reached = np.flatnonzero(curve <= target * (1 + 1e-9))
    return float(reached[0]) + 1 if len(reached) else math.inf


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def objective(curves: list[Vector], evaluations: int) -> float | None:
    """Median best objective value after so many evaluations; ``None`` if there were fewer."""
    if len(curves[0]) < evaluations:
        return None
    return median(float(curve[evaluations - 1]) for curve in curves)


def sensitivity_cost(task: Problem) -> float:
    """Time of the sensitivity estimate, in evaluations of a candidate that is not known yet."""
    rng = np.random.default_rng()  # candidates that no evaluator has met before
    space = task.constraints.space

    def evaluate() -> None:
        vectors = rng.uniform(space.lower, space.upper, (8, len(space)))
        task.evaluator.losses(space.decode(vectors), task.super_batch)

    return median_seconds(lambda: sensitivity(task), 7) / (median_seconds(evaluate, 7) / 8)


FULL = {
    "networks": list(NETWORKS),
    "epochs": None,
    "at": (128, 256, 1024),
    "samplers": {
        "plain CMA-ES": (1024, 7),
        "ours": (256, 7),
        "Optuna CMA-ES": (256, 7),
        "Optuna random": (256, 7),
        "Optuna NSGA-II": (256, 7),
        "Optuna TPE": (256, 7),
        "Optuna GP": (128, 3),
    },
}
QUICK = {
    "networks": list(NETWORKS)[:1],
    "epochs": 2,
    "at": (16, 32),
    "samplers": dict.fromkeys(FULL["samplers"], (32, 1)) | {"Optuna GP": (16, 1)},
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    run_benchmark("search_efficiency", measure, settings=FULL, quick=QUICK)
