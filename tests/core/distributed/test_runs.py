"""Whole runs in several processes: the result and the files are those of one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from torch import Tensor, nn

from gfb_brevitas import BitAllocation
from gfb_brevitas.errors import CheckpointError, ConfigurationError, DistributedError
from gfb_brevitas.search import SearchConfig, SearchResult
from gfb_brevitas.search.checkpoint import model_state
from tests.core.distributed.processes import free_port, in_processes
from tests.core.search.small_problem import (
    SEARCH,
    Recorder,
    accuracy,
    budgets,
    loss,
    network,
    network_with_native_scale,
    points,
    run,
    searchable,
)

ROOT = Path(__file__).parents[3]


class Stop(BaseException):
    """Stands for whatever ends a process."""


class StopAtGeneration:
    """Raises at a generation of the run, counted from 1."""

    def __init__(self, number: int) -> None:
        self.left = number

    def on_generation(self, record: Any) -> None:
        self.left -= 1
        if not self.left:
            raise Stop


class StopAtEpoch:
    """Raises after an epoch of the run."""

    def on_epoch(self, record: Any) -> None:
        if record.epoch == 3:
            raise Stop


def plain(result: SearchResult) -> dict[str, Any]:
    """A result as data; times left out."""
    return {
        "allocation": dict(result.allocation),
        "metric": result.metric,
        "best_epoch": result.best_epoch,
        "records": [{k: v for k, v in r.to_dict().items() if k != "seconds"} for r in result.history],
        "weights": {name: value.numpy() for name, value in model_state(result.searchable).items()},
        "folder": None if result.run_folder is None else str(result.run_folder),
    }


def whole_run(make: Any = network, seeded: bool = True, **arguments: Any) -> dict[str, Any]:
    """A run; without a seed every process starts with other weights, and the first one's count."""
    model = searchable(make(0 if seeded else 100 * int(os.environ.get("RANK", 0))))
    return plain(run(model, **{"name": "run", **arguments}))


def require_same_result(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["allocation"] == expected["allocation"]
    assert found["best_epoch"] == expected["best_epoch"]
    assert found["metric"] == pytest.approx(expected["metric"], abs=1e-6)
    require_close(found["records"], expected["records"], "records")
    for name, value in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def require_close(found: Any, expected: Any, place: str) -> None:
    """Equal but for the last digits of numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            require_close(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for i, (item, wanted) in enumerate(zip(found, expected, strict=True)):
            require_close(item, wanted, f"{place}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), place
    else:
        assert found == expected, place


def require_same_in_all(answers: list[Any]) -> None:
    for answer in answers:
        assert isinstance(answer, dict), answer
        for key in ("allocation", "metric", "best_epoch", "records", "folder"):
            assert answer[key] == answers[0][key]
        for name, value in answers[0]["weights"].items():
            assert (answer["weights"][name] == value).all(), name


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return whole_run()


def test_a_run_of_two_processes_is_that_of_one(tmp_path: Path, expected: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    answers = in_processes(whole_run, seeded=False, run_folder=folder)
    require_same_in_all(answers)
    require_same_result(answers[0], expected)
    assert answers[1]["folder"] == str(folder)
    assert dict(BitAllocation.load(folder / "allocation.json")) == expected["allocation"]
    assert len((folder / "history.jsonl").read_text().splitlines()) == len(expected["records"])


def test_native_scales_and_a_distribution_that_is_carried_over() -> None:
    search = SearchConfig(**{**vars(SEARCH), "carry_distribution": True})
    arguments: dict[str, Any] = {"make": network_with_native_scale, "search": search}
    answers = in_processes(whole_run, **arguments)
    require_same_in_all(answers)
    require_same_result(answers[0], whole_run(**arguments))


def without_memory_in_one_process() -> dict[str, Any]:
    """A run in which the estimate of sensitivities fails in one process only."""
    first = int(os.environ["RANK"]) == 0

    def scarce(model: nn.Module, batch: Any) -> Tensor:
        value = loss(model, batch)
        if value.requires_grad and not first and not model.training:
            raise RuntimeError("not enough memory")
        return value

    return plain(
        run(searchable(network()), name="run", loss=scarce, search=replace(SEARCH, method="surrogate"))
    )


def test_all_processes_start_from_the_first_ones_sensitivities() -> None:
    answers = in_processes(without_memory_in_one_process)
    require_same_in_all(answers)
    alone = whole_run(search=replace(SEARCH, method="surrogate"))
    assert answers[0]["allocation"] == alone["allocation"]


@pytest.mark.parametrize("first, second", [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, expected: dict[str, Any], first: int, second: int
) -> None:
    for size, stop in ((first, StopAtGeneration(4)), (second, StopAtEpoch())):
        stopped = in_processes(
            whole_run, size=size, run_folder=tmp_path / "run", resume=True, callbacks=[stop]
        )
        assert [type(error) for error in stopped] == [Stop, DistributedError][:size]
    answers = in_processes(whole_run, size=first, run_folder=tmp_path / "run", resume=True)
    require_same_in_all(answers)
    require_same_result(answers[0], expected)
    finished = in_processes(whole_run, size=second, run_folder=tmp_path / "run", resume=True)
    assert all(answer["records"] == answers[0]["records"] for answer in finished)


def recorded(storage: str) -> tuple[list[str], int]:
    calls = []

    def metric(model: nn.Module) -> float:
        calls.append(1)
        return accuracy(model)

    recorder = Recorder()
    run(callbacks=[recorder], metric=metric, storage=storage)
    return recorder.names, len(calls)


def test_only_the_first_process_writes_validates_and_calls_back(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    (names, calls), *others = in_processes(recorded, storage)
    assert names[0] == "on_start" and names[-1] == "on_end"
    assert calls > 5  # after every epoch, and of the candidates that a step chooses from
    assert others == [([], 0)]
    studies = optuna.get_all_study_summaries(storage)
    assert [study.n_trials for study in studies] == [3] + [12] * 4


def refused(folder: Path) -> None:
    run(run_folder=folder)


def test_what_the_first_process_refuses_is_refused_by_all(tmp_path: Path) -> None:
    whole_run(run_folder=tmp_path / "run")
    for error in in_processes(refused, tmp_path / "run"):
        assert isinstance(error, ConfigurationError) and "holds a run already" in str(error)


def failing_candidates(where: int, folder: Path) -> None:
    rank = int(os.environ["RANK"])

    def failing(model: nn.Module, batch: Any) -> Tensor:
        if rank == where and model.allocation != start and not model.training:  # type: ignore[operator]
            raise CheckpointError("No candidate can be evaluated here.")
        return loss(model, batch)

    model = searchable()
    start = model.space.uniform(4)
    run(model, loss=failing, run_folder=folder, budgets=budgets(uniform_bits=4))


@pytest.mark.parametrize("where", [0, 1])
def test_a_candidate_that_fails_in_one_process_ends_the_run_in_all(tmp_path: Path, where: int) -> None:
    for error in in_processes(failing_candidates, where, tmp_path / "run"):
        assert isinstance(error, CheckpointError) and "No candidate can be evaluated" in str(error)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.core.search.small_problem import run
result = run(run_folder=Path(sys.argv[1]), resume=True)
print(dict(result.allocation))
"""


def test_a_script_under_torchrun(tmp_path: Path, expected: dict[str, Any]) -> None:
    """The program of one process, unchanged."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), str(script), str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(expected["allocation"])) == 2
    assert dict(BitAllocation.load(tmp_path / "run" / "allocation.json")) == expected["allocation"]


def on_cuda() -> dict[str, Any]:
    model = searchable().to("cuda")
    inputs, labels = (tensor.cuda() for tensor in points(64, seed=1).tensors)
    result = run(model, metric=lambda model: -float(loss(model, (inputs, labels))))
    result.searchable.cpu()
    return plain(result)


@pytest.mark.cuda
def test_processes_on_cuda() -> None:
    """Without a device of its own for every process, gradients go through the CPU."""
    answers = in_processes(on_cuda)
    require_same_in_all(answers)
    assert len(answers[0]["records"]) > 12
