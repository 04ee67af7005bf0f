"""What a small search loses when something happens to it: nothing, it is hoped.

Every try has a run of its own, which writes a run folder and an Optuna storage. It is disturbed, resumed
where it ended, and compared with a run that nothing happened to: allocation, metric, weights, history, the
trials in the storage, and every file. ``lost`` counts the tries of which anything is missing, doubled or
another one, or where an error was not a clear one; ``allocation_differs`` those that end with another
allocation or read one out of a damaged file. ``seen`` says what happened on the way.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import optuna
from _harness import Figures, Settings, run_benchmark

sys.path.insert(0, str(Path(__file__).parents[2]))

from gfb_brevitas.search.recorded_run import RecordedRun
from tests.core.faults import damage, databases, disks, endings
from tests.core.faults.runs import Course, RunProcess, Undisturbed
from tests.core.search.databases import NoPostgresql, postgresql_server
from tests.integrations.mlflow.servers import MlflowServer, copied_store, make_empty_store, running

SETTINGS = {"kills": 50, "tries": 10, "slow_tries": 5, "damages": 2000, "longest_s": 900.0}
QUICK = {"kills": 2, "tries": 1, "slow_tries": 1, "damages": 20, "longest_s": 60.0}


def mlflow_killed(course: Course, server: MlflowServer) -> None:
    """The MLflow server is killed at a random moment and started again two seconds later."""
    for folder in course.folders():
        process = RunProcess(folder, tracking=server.url)
        process.wait_for_lines(int(course.rng.integers(1, len(course.expected.history))))
        server.kill()
        time.sleep(2.0)
        server.start()
        first = process.wait()
        if first.allocation is None:
            course.note([first.error or "it died"])
            continue
        _judge_tracked(course, folder, server)


def tracked_search_killed(course: Course, server: MlflowServer) -> None:
    """A search that MLflow follows is killed at a random moment, and resumed."""
    for folder in course.folders():
        process = RunProcess(folder, tracking=server.url)
        process.wait_for_lines(int(course.rng.integers(1, len(course.expected.history))))
        process.end()
        _judge_tracked(course, folder, server)


def _judge_tracked(course: Course, folder: Path, server: MlflowServer) -> None:
    # What is left when a run ends is delivered by the next process that works in the folder.
    outcome = RunProcess(folder, tracking=server.url).wait()
    course.judge(folder, outcome, further=_missing_in_mlflow(folder, server))


def _missing_in_mlflow(folder: Path, server: MlflowServer) -> list[str]:
    from mlflow import MlflowClient

    from tests.integrations.mlflow.reading import points, shows

    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(folder.name)
    found = [] if experiment is None else client.search_runs([experiment.experiment_id])
    searches = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    history = RecordedRun.load(folder / "run").history
    if len(searches) == 1 and shows(points(client, searches[0]), history):
        return []
    return ["MLflow does not show the history"]


def damaged(kind: damage.FileKind) -> Callable[[Course], None]:
    """Tries of one kind of file, half of them cut off."""

    def both(course: Course) -> None:
        tries = course.tries
        course.tries = tries // 2
        damage.damage(course, kind, damage.truncated)
        course.tries = tries
        damage.damage(course, kind, damage.flipped)

    return both


def _faults(settings: Settings) -> Iterator[tuple[str, Callable[[Course], None], int]]:
    tries, slow = settings["tries"], settings["slow_tries"]
    yield "SIGKILL at a random moment", endings.kill, settings["kills"]
    yield "SIGKILL again and again", endings.kill_again_and_again, slow
    yield "Ctrl-C at a random moment", endings.interrupt, tries
    yield "a second process on the folder", endings.start_twice, tries
    yield "disk full", disks.disk_full, tries
    yield "run folder read only", disks.read_only, tries
    yield "SQLite locked for 2 s", databases.locked_for_a_while, slow
    yield "SQLite locked to the end", databases.locked_to_the_end, slow
    yield "study deleted", databases.study_deleted, slow
    yield "file damaged, then resumed", damage.damage_then_resume, tries
    yield "pickles in place of files", damage.bomb, slow
    for kind in damage.KINDS:
        yield f"{kind.name} damaged", damaged(kind), settings["damages"]


def _server_faults(
    settings: Settings, stack: ExitStack, root: Path
) -> Iterator[tuple[str, Callable[[Course], None], int]]:
    slow = settings["slow_tries"]
    make_empty_store(root / "empty.db")
    server = MlflowServer(root, copied_store(root / "empty.db", root / "mlflow"))
    stack.enter_context(running(server))
    yield "MLflow server killed and restarted", lambda course: mlflow_killed(course, server), slow
    yield "SIGKILL of a search that MLflow follows", partial(tracked_search_killed, server=server), slow
    database = stack.enter_context(postgresql_server())
    for name, fault in (
        ("PostgreSQL killed and restarted", databases.server_killed),
        ("PostgreSQL killed, back after the run", databases.server_gone),
        ("PostgreSQL hangs to the end", databases.server_hangs),
    ):
        yield name, lambda course, fault=fault: fault(course, database), slow  # type: ignore[misc]


def measure(settings: Settings) -> Figures:
    """All faults."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    figures: Figures = {"faults": []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        expected = Undisturbed.make(root)
        numbers = count()

        def row(name: str, fault: Callable[[Course], None], tries: int) -> dict[str, Any]:
            own = root / str(next(numbers))
            course = Course(name, expected, own, tries, longest_s=settings["longest_s"])
            own.mkdir()
            try:
                fault(course)
            except disks.NoTmpfs as reason:
                course.saw(f"not tried: {reason}")
            for problem in course.problems:
                print(f"{name}: {problem}", file=sys.stderr)
            return course.row()

        figures["faults"] += [row(*fault) for fault in _faults(settings)]
        try:
            figures["faults"] += [row(*fault) for fault in _server_faults(settings, stack, root)]
        except NoPostgresql as reason:
            figures["without_postgresql"] = str(reason)
    for name in ("tries", "lost", "allocation_differs"):
        figures[name] = sum(line[name] for line in figures["faults"])
    return figures


if __name__ == "__main__":
    run_benchmark("faults", measure, settings=SETTINGS, quick=QUICK)
