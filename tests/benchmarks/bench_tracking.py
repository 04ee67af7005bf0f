"""What following a search costs it: MLflow and an Optuna storage on SQLite, against none of both.

``overhead_ratio`` is the time of ``fit`` with tracking over that without, medians of runs that alternate in
one process: with an ``mlflow server`` on SQLite and an Optuna storage on SQLite. The rows divide it: MLflow
alone, with a server, with a store without one, and with a server that is away. What is not tracked is
measured twice as often; ``none`` and ``none, again`` are its halves, and show how much equal searches differ
on the machine as it is. The search has one thread, which is what so small a network is best trained with; the
server and the process that delivers to it have the other cores. ``cpu_ratio`` is that of the processor time
of the search's own process, which a busy machine changes less. ``in_callbacks`` is the share of the search's
time that passes in the callback, ``closing_s`` what delivering the rest takes afterwards.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import torch
from _harness import Figures, Settings, run_benchmark

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "integrations"))
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from digits import digits_data, digits_model
from experiment import cross_entropy

import gfb_brevitas as gfb
from gfb_integrations.mlflow import MlflowTracking
from tests.integrations.mlflow.servers import MlflowServer, free_port, running

SETTINGS = {
    "rounds": 3,
    "steps_per_round": 2,
    "evaluations_per_step": 240,
    "population_size": 15,
    "epochs_per_round": 4,
    "repeats": 5,
    "method": "cma-es",
}
QUICK = {"rounds": 2, "evaluations_per_step": 30, "epochs_per_round": 1, "repeats": 1}
NOTHING = ("none", "none, again")
LOCAL = "MLflow store on SQLite, no server"
BOTH = "MLflow server and Optuna, both on SQLite"


class Clock:
    """Passes everything on to a tracking, and adds up the time that it takes."""

    def __init__(self, tracking: MlflowTracking) -> None:
        self._tracking, self.seconds = tracking, 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tracking, name)

        def timed(*arguments: Any) -> None:
            began = time.perf_counter()
            method(*arguments)
            self.seconds += time.perf_counter() - began

        return timed


class Searches:
    """The same search again and again, each in a folder of its own.

    Args:
        settings: The settings.
        folder: Where to.
        server: URL of an MLflow server on SQLite.
    """

    def __init__(self, settings: Settings, folder: Path, server: str) -> None:
        self._folder, self._count = folder, 0
        names = ("rounds", "steps_per_round", "evaluations_per_step", "population_size", "epochs_per_round")
        chosen = {name: settings[name] for name in names}
        self._search = gfb.SearchConfig(**chosen, method=settings["method"], super_batch_size=4)
        data = digits_data()
        self._batches, self._validation = (
            list(zip(images.split(128), labels.split(128), strict=True))
            for images, labels in (data.train, data.validation)
        )
        self._tracking: dict[str, Callable[[], MlflowTracking | None]] = {
            **{way: lambda: None for way in NOTHING},
            BOTH: lambda: MlflowTracking(server),
            "MLflow server on SQLite": lambda: MlflowTracking(server),
            LOCAL: lambda: MlflowTracking(f"sqlite:///{folder}/local.db"),
            "MLflow server that is away": lambda: MlflowTracking(
                f"http://127.0.0.1:{free_port()}", timeout_s=1
            ),
        }

    @property
    def ways(self) -> list[str]:
        """Ways to follow a search."""
        return list(self._tracking)

    def seconds(self, way: str) -> tuple[float, float, float, float]:
        """Wall time and processor time of a search, wall time in the callback, and of closing."""
        self._count += 1
        folder = self._folder / f"run-{self._count}"
        model = gfb.make_searchable(digits_model(), self._batches[0][0][:2])
        tracking = self._tracking[way]()
        clock = None if tracking is None else Clock(tracking)
        storage = f"sqlite:///{folder}.db" if way == BOTH else None
        if storage is not None:
            optuna.storages.RDBStorage(storage)  # its tables are made once for all of a user's studies
        began, began_cpu = time.perf_counter(), time.process_time()
        gfb.fit(
            model,
            loss=cross_entropy,
            train_batches=self._batches,
            validation_batches=self._validation,
            budgets=gfb.paper_budgets(3),
            search=self._search,
            training=gfb.TrainingConfig(optimizer="adam", learning_rate=2e-3),
            run_folder=folder,
            storage=storage,
            callbacks=[] if clock is None else [clock],
        )
        seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        began = time.perf_counter()
        if tracking is not None:
            tracking.close()
        return seconds, cpu, 0.0 if clock is None else clock.seconds, time.perf_counter() - began


def measure(settings: Settings) -> Figures:
    """All ways, in an order that is shuffled anew in every repeat."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = MlflowServer(folder, f"sqlite:///{folder}/server.db")
        searches = Searches(settings, folder, stack.enter_context(running(server)).url)
        times: dict[str, list[tuple[float, float, float, float]]] = {way: [] for way in searches.ways}
        for way in (NOTHING[0], BOTH, LOCAL):
            searches.seconds(way)  # makes tables and compiles; not counted
        order = random.Random(0)
        for _ in range(settings["repeats"]):
            for way in order.sample(searches.ways, len(searches.ways)):
                times[way].append(searches.seconds(way))
    medians = {
        way: [statistics.median(column) for column in zip(*rows, strict=True)] for way, rows in times.items()
    }
    base_seconds, base_cpu = (
        statistics.median(run[column] for way in NOTHING for run in times[way]) for column in (0, 1)
    )
    rows = [
        {
            "tracking": way,
            "overhead_ratio": seconds / base_seconds,
            "cpu_ratio": cpu / base_cpu,
            "seconds": seconds,
            "in_callbacks": inside / seconds,
            "closing_s": closing,
        }
        for way, (seconds, cpu, inside, closing) in medians.items()
    ]
    generations = settings["rounds"] * settings["steps_per_round"]
    generations *= -(-settings["evaluations_per_step"] // settings["population_size"])
    overhead = next(row["overhead_ratio"] for row in rows if row["tracking"] == BOTH)
    return {"overhead_ratio": overhead, "generations": generations, "searches": rows}


if __name__ == "__main__":
    run_benchmark("tracking", measure, settings=SETTINGS, quick=QUICK)
