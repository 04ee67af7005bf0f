"""Folders that hold another run, are damaged or in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.search import SearchConfig, TrainingConfig
from gfb_brevitas.search.run_lock import exclusive
from tests.core.search.small_problem import SEARCH, budgets, comparable, network, run, searchable


class Stop(BaseException):
    """Stands for whatever ends a process; nothing catches it."""


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Any, ...]:
    return comparable(run(name="run"))


def test_without_resume_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(run_folder=tmp_path / "run")
    before = (tmp_path / "run" / "history.jsonl").read_bytes()
    with pytest.raises(ConfigurationError, match="holds a run already. Pass resume=True"):
        run(run_folder=tmp_path / "run")
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": SearchConfig(**{**vars(SEARCH), "seed": 5})}, r"search\.seed was 0 and is 5"),
        ({"training": TrainingConfig(learning_rate=0.5)}, "training.learning_rate was 0.05 and is 0.5"),
        ({"budgets": budgets(beta=0.8)}, "beta was 0.9 and is 0.8"),
        ({"budgets": []}, "budgets was"),
        ({"calibrate": False}, "calibrate was true and is false"),
        (
            {"model": searchable(network(hidden=13))},
            r"parameters.model.0.weight was \[12, 8\] and is \[13, 8\]",
        ),
    ],
)
def test_another_run_is_refused_and_the_difference_named(
    stopped: Path, changes: dict[str, Any], message: str
) -> None:
    arguments = dict(changes)
    with pytest.raises(CheckpointError, match=message):
        run(arguments.pop("model", None), run_folder=stopped, resume=True, **arguments)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a run that was stopped after its fourth epoch; tests that change it copy it."""

    class StopAtFourth:
        def on_epoch(self, record: Any) -> None:
            if record.epoch == 4:
                raise Stop

    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stop):
        run(run_folder=folder, callbacks=[StopAtFourth()])
    return folder


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    for path in stopped.rglob("*"):
        if path.is_file():
            target = tmp_path / "run" / path.relative_to(stopped)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "run"


def test_a_damaged_checkpoint_costs_a_unit_and_nothing_else(
    copied: Path, undisturbed: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    latest = copied / "checkpoints" / "latest.pt"
    latest.write_bytes(latest.read_bytes()[:1000])
    assert comparable(run(run_folder=copied, resume=True)) == undisturbed
    assert "latest.pt' is damaged" in caplog.text


def test_a_folder_without_good_checkpoints(copied: Path) -> None:
    for name in ("latest.pt", "previous.pt"):
        (copied / "checkpoints" / name).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"latest\.pt' is damaged.*previous\.pt' is damaged"):
        run(run_folder=copied, resume=True)


def test_a_shortened_history(copied: Path) -> None:
    history = copied / "history.jsonl"
    history.write_bytes(history.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"history\.jsonl' is damaged"):
        run(run_folder=copied, resume=True)


def test_a_history_that_is_longer_than_the_checkpoint(copied: Path, undisturbed: tuple[Any, ...]) -> None:
    with (copied / "history.jsonl").open("a") as stream:
        stream.write('{"kind":"round","round":7}\n{"kind":"rou')
    assert comparable(run(run_folder=copied, resume=True)) == undisturbed


def test_a_damaged_configuration(copied: Path) -> None:
    (copied / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json' is damaged"):
        run(run_folder=copied, resume=True)


def test_a_folder_in_use(copied: Path) -> None:
    with exclusive(copied / "run.lock"), pytest.raises(CheckpointError, match="in use by another run"):
        run(run_folder=copied, resume=True)
