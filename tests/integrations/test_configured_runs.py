"""Runs of configuration files with everything that can be attached to them."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import optuna
import pytest
from typer.testing import Result

import gfb_brevitas as gfb
from gfb_brevitas.configuration.schema import Dashboard, Mlflow
from gfb_integrations.mlflow import MlflowTracking
from gfb_integrations.optuna_dashboard import DashboardNotes
from tests.core.test_cli import assert_one_line
from tests.core.test_cli import gfb as command

NETWORK = """\
import brevitas.nn as qnn
import torch
from torch import nn
from tests.core.search import small_problem as problem

def make():
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(problem.FEATURES, 12, bias=True, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.QuantLinear(12, problem.CLASSES, bias=True, weight_bit_width=4),
    )
    return model, torch.zeros(2, problem.FEATURES)

train = problem.loader
"""
SEARCH = """\
model: attached_network:make
loss: cross_entropy
train_batches: attached_network:train
validation_batches: attached_network:train
metric: accuracy
bits: [2, 8]
budgets: [{paper: 4, rho: 20}]
search: {rounds: 2, steps_per_round: 1, evaluations_per_step: 12, population_size: 4, epochs_per_round: 1}
training: {optimizer: adam, learning_rate: 1e-2}
run_folder: run
baselines: []
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user, which is the current one."""
    (tmp_path / "attached_network.py").write_text(NETWORK)
    (tmp_path / "search.yaml").write_text(SEARCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("attached_network", None)


def test_a_run_is_exported_reported_tracked_and_annotated(folder: Path) -> None:
    result = command(
        *("run", "search.yaml", "--json", "export=true", "storage=sqlite:///studies.db"),
        *(
            "dashboard={artifacts: artifacts}",
            "mlflow={tracking_uri: 'sqlite:///mlflow.db', registered_name: net}",
        ),
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["files"] == ["run/model.qonnx.onnx", "run/report.html"]
    summary = gfb.RecordedRun.load("run").summary
    assert summary is not None and summary["qonnx_max_abs_diff"] == pytest.approx(0, abs=1e-5)
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "1.weight_quant" in page and "<script src=" not in page

    names = optuna.get_all_study_names("sqlite:///studies.db")
    assert sorted(names) == ["run", "run/round-01/step-01", "run/round-02/step-01"]
    study = optuna.load_study(study_name="run", storage="sqlite:///studies.db")
    assert study.best_trial.value == pytest.approx(printed["metric"])
    assert any(Path("artifacts").iterdir())

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")  # MLflow remembers stores by their address
    (experiment,) = client.search_experiments(filter_string="name = 'gfb_brevitas'")
    runs = client.search_runs([experiment.experiment_id])
    (search,) = (run for run in runs if run.info.run_name == "run")
    assert search.data.metrics["result/metric"] == pytest.approx(printed["metric"])
    artifacts = {file.path for file in client.list_artifacts(search.info.run_id)}
    assert {"allocation.json", "report.html", "model.qonnx.onnx"} <= artifacts
    assert [version.version for version in client.search_model_versions("name = 'net'")]


STOPPING = """
calls = 0

def metric(model):
    global calls
    calls += 1
    if calls == 2:
        raise KeyboardInterrupt
    return float(calls)
"""


@pytest.mark.parametrize("tracking", ["true", "{tracking_uri: 'sqlite:///mlflow.db'}"])
def test_a_run_that_is_resumed_from_elsewhere_goes_on_in_its_own_places(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tracking: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    (folder / "attached_network.py").write_text(NETWORK + STOPPING)
    stopped = command(
        *("run", "search.yaml", "-q", "metric=attached_network:metric", "report=false"),
        *("storage=sqlite:///studies.db", "dashboard={artifacts: artifacts}", f"mlflow={tracking}"),
    )
    assert stopped.exit_code == 130, stopped.output
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    resumed = command("resume", folder / "run", "-q")
    assert resumed.exit_code == 0, resumed.output
    assert not list(elsewhere.iterdir())

    study = optuna.load_study(study_name="run", storage=f"sqlite:///{folder}/studies.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'gfb_brevitas'")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == dict.fromkeys(
        ["run", "round-01", "round-02"], "FINISHED"
    )
    assert any((folder / "artifacts").iterdir())


def test_a_run_is_exported_later(folder: Path) -> None:
    assert command("run", "search.yaml", "-q").exit_code == 0
    result = command("export", "run", "-o", "there/model.onnx", "--weights", "weights.pt", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["verification"]["argmax_agreement"] == 1.0
    summary = gfb.RecordedRun.load("run").summary  # which the report tells of
    assert summary is not None and summary["qonnx"] == found
    assert summary["qonnx_argmax_agreement"] == 1.0
    assert Path("there/model.onnx").is_file()
    applied = command(
        *("apply", "run/allocation.json", "--model", "attached_network:make", "--weights", "weights.pt"),
        *("--export", "again.onnx"),
    )
    assert applied.exit_code == 0 and not applied.stderr, applied.stderr
    # For a run of a program the model is named.
    again = command("export", "run", "-o", "again.onnx", "--model", "attached_network:make")
    assert again.exit_code == 1 and "of another model" in again.stderr  # bits: [2, 8]


COUNTING = """
from collections import Counter

called = Counter()
sizes = (problem.FEATURES, problem.FEATURES + 2)

def counted():
    called["model"] += 1
    return make()

def counted_train():
    called["train"] += 1
    return list(problem.loader())

def validation():
    called["validation"] += 1
    return [(torch.zeros(4, size), torch.zeros(4).long()) for size in 3 * sizes]

def metric(model):
    return 1.0
"""


def counting(folder: Path, *changes: str) -> Result:
    (folder / "attached_network.py").write_text(NETWORK + COUNTING)
    changes += ("validation_batches=attached_network:validation", "metric=attached_network:metric")
    changes += ("model=attached_network:counted", "train_batches=attached_network:counted_train")
    return command("run", "search.yaml", "--json", "export=true", *changes)


def test_batches_of_several_sizes_and_functions_that_are_called_once(folder: Path) -> None:
    result = counting(folder, "report=false", "mlflow={tracking_uri: 'sqlite:///mlflow.db'}")
    assert result.exit_code == 0, result.output
    assert sys.modules["attached_network"].called == {"model": 1, "train": 1, "validation": 1}
    summary = gfb.RecordedRun.load("run").summary
    assert summary is not None and summary["qonnx"]["verification"]["samples"] == 3 * 4


@pytest.mark.parametrize("error", [RuntimeError("no disk"), gfb.GfbError("no disk")])
def test_a_step_after_the_search_that_fails_keeps_none_from_happening(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("gfb_brevitas.cli.running.export_result", failing)
    result = counting(folder, "mlflow={tracking_uri: 'sqlite:///mlflow.db'}")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["allocation"] and printed["files"] == ["run/report.html"]
    assert f"Export failed: {type(error).__name__}: no disk\n" in result.stderr
    assert ("Traceback" in result.stderr) == isinstance(error, RuntimeError)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")  # MLflow remembers stores by their address
    (experiment,) = client.search_experiments(filter_string="name = 'gfb_brevitas'")
    assert client.search_logged_models([experiment.experiment_id])


def test_a_report_is_written_later(folder: Path) -> None:
    assert command("run", "search.yaml", "-q", "report=false").exit_code == 0
    assert not Path("run/report.html").exists()
    result = command("report", "run", "-o", "page.html")
    assert (result.exit_code, result.stdout.strip()) == (0, "page.html")
    assert_one_line(command("report", "none"), "There is no folder 'none'")


def test_every_setting_of_tracking_and_notes_can_be_said() -> None:
    given_by_the_run = {"storage", "artifact_store", "project"}
    for section, kind, own in (
        (Mlflow, MlflowTracking, {"registered_name"}),
        (Dashboard, DashboardNotes, {"artifacts"}),
    ):
        parameters = inspect.signature(kind).parameters
        assert set(section.model_fields) - own == set(parameters) - given_by_the_run
        for name in set(section.model_fields) - own - {"tags"}:
            assert section.model_fields[name].default == parameters[name].default


def test_tracking_with_settings(folder: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")  # MLflow remembers stores by their address
    parent = client.create_run(client.create_experiment("mine"))
    about = {
        "tracking_uri": "sqlite:///mlflow.db",
        "experiment": "mine",
        "run_name": "first",
        "parent_run_id": parent.info.run_id,
        "tags": {"team": "vision", "ticket": 7},
        "log_artifacts": False,
        "system_metrics": False,
        "timeout_s": 60,
    }
    assert command("run", "search.yaml", "-q", f"mlflow={json.dumps(about)}").exit_code == 0
    runs = client.search_runs([parent.info.experiment_id])
    (search,) = (run for run in runs if run.info.run_name == "first")
    assert {"team": "vision", "ticket": "7", "mlflow.parentRunId": parent.info.run_id}.items() <= (
        search.data.tags.items()
    )
    assert not client.list_artifacts(search.info.run_id)
    assert not [name for name in search.data.metrics if name.startswith("system")]


@pytest.mark.parametrize("setting", ["experiment: ''", "timeout_s: -1", "tags: 3", "run_name: ''"])
def test_settings_of_tracking_that_are_wrong(folder: Path, setting: str) -> None:
    assert_one_line(command("run", "search.yaml", f"mlflow={{{setting}}}"), "mlflow", "on the command line: ")
    assert not Path("run").exists()


def test_notes_need_a_storage(folder: Path) -> None:
    assert_one_line(command("run", "search.yaml", "dashboard=true"), "`dashboard` needs a `storage`")
