"""Folders that hold another run, are damaged or in use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import optuna
import pytest
import torch
from torch import nn

from gfb_brevitas.adapters import SearchableModel, make_searchable
from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.search import Callback, RecordedRun, SearchConfig, TrainingConfig
from gfb_brevitas.search.checkpoint import content_digest
from gfb_brevitas.search.history import RoundRecord, StepRecord
from gfb_brevitas.search.run_lock import exclusive
from tests.core.search.small_problem import FEATURES, SEARCH, budgets, comparable, network, run, searchable


class Stop(BaseException):
    """Stands for whatever ends a process; nothing catches it."""


def searchable_with(**settings: Any) -> SearchableModel:
    return make_searchable(network(), torch.zeros(2, FEATURES), **settings)


def signed_activations() -> nn.Module:
    """The network with a signed quantizer where it has an unsigned one; parameters are the same."""
    module = network()
    module[2] = qnn.QuantIdentity(bit_width=4)  # type: ignore[operator]
    return module


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
        (
            {"model": searchable_with(weight_normalization=True)},
            "0.weight_quant.normalize was false and is true",
        ),
        (
            {"model": searchable_with(clipping="constant")},
            '2.act_quant.clipping was "LinearClipping" and is "ConstantClipping"',
        ),
        ({"model": searchable(signed_activations())}, "2.act_quant.signed was false and is true"),
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


def test_a_resumed_run_leaves_the_studies_of_another_run_alone(tmp_path: Path) -> None:
    class StopAtFirstStep:
        def on_step(self, record: Any) -> None:
            raise Stop

    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(Stop):
        run(run_folder=tmp_path / "run", callbacks=[StopAtFirstStep()])
    run(storage=storage, name="run")
    trials = {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(storage)}
    with pytest.raises(ConfigurationError, match="study 'run' of another run.*`name`"):
        run(run_folder=tmp_path / "run", resume=True, storage=storage)
    assert {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(storage)} == trials
    run(run_folder=tmp_path / "run", resume=True, storage=storage, name="mine")


def test_a_study_that_appeared_meanwhile_is_not_written_to() -> None:
    storage = optuna.storages.InMemoryStorage()

    class AnotherRun:
        def on_epoch(self, record: Any) -> None:
            if record.epoch == 2:
                optuna.create_study(study_name="gfb/round-02/step-01", storage=storage)

    with pytest.raises(ConfigurationError, match="study 'gfb/round-02/step-01' already"):
        run(storage=storage, callbacks=[AnotherRun()])


def test_runs_have_ids_of_their_own(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    for name in ("first", "second"):
        run(run_folder=tmp_path / name, storage=storage)
    ids = {
        name: json.loads((tmp_path / name / "config.json").read_text())["run"] for name in ("first", "second")
    }
    assert len(set(ids.values())) == 2
    for study in optuna.get_all_study_summaries(storage):
        assert study.user_attrs["gfb_run"] == ids[study.study_name.split("/")[0]]


def test_the_summary_of_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run(run_folder=tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    extended = json.dumps({**json.loads(summary.read_text()), "test_accuracy": 0.5})
    summary.write_text(extended)
    run(run_folder=tmp_path / "run", resume=True)
    assert summary.read_text() == extended
    summary.unlink()
    run(run_folder=tmp_path / "run", resume=True)
    assert "test_accuracy" not in json.loads(summary.read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"completed": 12}, "holds no best state"),
        ({"completed": 99}, "99 of 12 units"),
        ({"allocation": {"0.weight_quant": 3}}, "allocation does not fit"),
        ({"optimizer": {"state": {}, "param_groups": []}}, "optimizer"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_checkpoint_whose_content_does_not_fit(copied: Path, changes: dict[str, Any], message: str) -> None:
    for name in ("latest.pt", "previous.pt"):
        path = copied / "checkpoints" / name
        content = torch.load(path, weights_only=True)["content"]
        content = {**content, **changes, "best": None}
        torch.save({"version": 1, "digest": content_digest(content), "content": content}, path)
    with pytest.raises(CheckpointError, match=message):
        run(run_folder=copied, resume=True)


def test_a_run_whose_configuration_got_lost_is_not_overwritten(copied: Path) -> None:
    (copied / "config.json").unlink()
    before = {path: path.read_bytes() for path in copied.rglob("*.*") if path.suffix in (".pt", ".jsonl")}
    with pytest.raises(
        CheckpointError, match=r"holds a run \('history.jsonl'\) whose 'config.json' is missing"
    ):
        run(run_folder=copied, resume=True)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_what_a_killed_writer_left_is_removed(copied: Path, undisturbed: tuple[Any, ...]) -> None:
    left = [copied / ".config.json.abc.tmp", copied / "checkpoints" / ".latest.pt.abc.tmp"]
    for path in left:
        path.write_text("unfinished")
    assert comparable(run(run_folder=copied, resume=True)) == undisturbed
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("name", ["history.jsonl", "config.json"])
def test_a_changed_number_is_an_error(copied: Path, name: str) -> None:
    path = copied / name
    text = path.read_text()
    changed = text.replace("0.05", "0.06", 1)  # the learning rate
    assert changed != text
    path.write_text(changed)
    with pytest.raises(CheckpointError, match=f"{name}' is damaged"):
        run(run_folder=copied, resume=True)
    assert path.read_text() == changed


def test_a_storage_that_fails_at_the_start(tmp_path: Path) -> None:
    class Down(optuna.storages.InMemoryStorage):
        def get_all_studies(self) -> Any:
            raise OSError("connection refused\nwith details")

    with pytest.raises(ConfigurationError, match="The storage fails: connection refused. Nothing of the run"):
        run(run_folder=tmp_path / "run", storage=Down())
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_folder_that_is_removed_ends_the_run(tmp_path: Path) -> None:
    class Remove(Callback):
        def on_round(self, record: RoundRecord) -> None:
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(CheckpointError, match="was removed, moved or replaced while the run went on"):
        run(run_folder=tmp_path / "run", callbacks=[Remove()])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_user_code_may_change_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    class Change(Callback):
        def on_step(self, record: StepRecord) -> None:
            os.chdir(elsewhere)

    result = run(run_folder="run", callbacks=[Change()])
    assert not list(elsewhere.iterdir())
    assert RecordedRun.load(tmp_path / "run").allocation == result.allocation


def test_warnings_are_seen_without_any_handler_as_well(tmp_path: Path) -> None:
    """The log file is a handler, and with one Python prints no warning by itself."""
    program = (
        "import logging, sys\n"
        "from pathlib import Path\n"
        "from gfb_brevitas.search.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).opened():\n"
        "    logging.getLogger('gfb_brevitas.search').warning('the loss is at chance')\n"
        "    logging.getLogger('gfb_brevitas.search').info('an epoch is over')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert ended.stderr == "the loss is at chance\n"
    assert "an epoch is over" in (tmp_path / "run" / "run.log").read_text()
