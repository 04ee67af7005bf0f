"""A search in MLflow: what is there, and where."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search import EndRecord, RecordedRun, SearchResult, StartRecord
from gfb_brevitas.search.callbacks import notify
from gfb_brevitas.search.history import History
from gfb_integrations.mlflow import MlflowTracking
from gfb_integrations.mlflow.session import Session
from gfb_integrations.mlflow.spool import Event
from tests.core.search.databases import NoPostgresql, postgresql
from tests.core.search.small_problem import SEARCH, run
from tests.forked_python import ForkedPython
from tests.integrations.mlflow.reading import SQLALCHEMY, all_points, points, runs_by_name, shows, wait_for
from tests.integrations.mlflow.servers import MlflowServer, running
from tests.integrations.mlflow.test_git_state import git

pytestmark = pytest.mark.filterwarnings(SQLALCHEMY)
ROOT = Path(__file__).parents[3]
ROUNDS = ["pretraining", "round-01", "round-02"]


def tracked(uri: str, **changes: Any) -> tuple[SearchResult, str]:
    """A whole search, tracked; its result and the id of its run."""
    with MlflowTracking(uri, timeout_s=60) as tracking:
        result = run(callbacks=[tracking], **changes)
    assert tracking.close(), "all is delivered"
    assert tracking.run_id is not None or "run_folder" not in changes
    return result, tracking.run_id or ""


@pytest.fixture(scope="module")
def on_server(
    shared_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MlflowClient, SearchResult, str]:
    """A search with a run folder, on a server with SQLite."""
    folder = tmp_path_factory.mktemp("search") / "first"
    return MlflowClient(shared_server.url), *tracked(shared_server.url, run_folder=folder)


def test_the_search_is_a_run_with_one_inside_for_each_round(
    on_server: tuple[MlflowClient, SearchResult, str],
) -> None:
    client, result, run_id = on_server
    runs = runs_by_name(client, run_id)
    assert sorted(runs) == [*ROUNDS, "search"]
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert runs["search"].info.run_name == "first"
    assert runs["search"].data.tags["gfb_brevitas.run_folder"] == str(result.run_folder)


def test_metrics_are_those_of_the_history(on_server: tuple[MlflowClient, SearchResult, str]) -> None:
    client, result, run_id = on_server
    found = all_points(client, run_id)
    assert shows(found["search"], result.history)
    for name in ("generation/best_value", "epoch/metric", "round/metric", "cost/weight_size"):
        in_rounds = [point for key in ROUNDS for point in found[key].get(name, [])]
        assert in_rounds == found["search"][name], "the rounds divide the search"
    share = [value for _, value in found["search"]["generation/feasible_share"]]
    assert share == [g.feasible / 4 for g in result.history.generations]
    metrics = client.get_run(run_id).data.metrics
    assert metrics["result/metric"] == result.metric
    assert metrics["generation/evaluations_per_second"] > 0


def test_parameters_are_settings_budgets_and_versions(
    on_server: tuple[MlflowClient, SearchResult, str],
) -> None:
    client, _, run_id = on_server
    data = client.get_run(run_id).data
    assert data.params["search.rounds"] == str(SEARCH.rounds)
    assert data.params["search.seed"] == "0"
    assert data.params["training.learning_rate"] == "0.05"
    assert data.params["budgets.0.cost.name"] == "weight_size"
    assert "versions.torch" in data.params
    assert data.tags["mlflow.user"]


def test_files_of_the_run_folder_and_allocations_are_artifacts(
    on_server: tuple[MlflowClient, SearchResult, str], tmp_path: Path
) -> None:
    client, result, run_id = on_server
    runs = runs_by_name(client, run_id)
    names = {file.path for file in client.list_artifacts(run_id)}
    assert {"allocation.json", "summary.json", "config.json", "history.jsonl", "run.log"} <= names
    summary = json.loads(Path(client.download_artifacts(run_id, "summary.json", str(tmp_path))).read_text())
    assert summary["allocation"] == dict(result.allocation)
    round_id = runs["round-02"].info.run_id
    file = client.download_artifacts(round_id, "allocation.json", str(tmp_path))
    assert json.loads(Path(file).read_text()) == dict(result.history.rounds[1].allocation)
    steps = {file.path for file in client.list_artifacts(round_id, "allocations")}
    assert steps == {f"allocations/round-02-step-{i:02d}.json" for i in (1, 2)}


def test_files_made_after_the_search_are_logged_when_the_tracking_is_closed(
    store: str, tmp_path: Path
) -> None:
    with MlflowTracking(store, timeout_s=60) as tracking:
        run(callbacks=[tracking], run_folder=tmp_path / "run")
        (tmp_path / "run" / "report.html").write_text("<p>made later</p>")
        (tmp_path / "mine.txt").write_text("mine")
        tracking.log_artifact(tmp_path / "mine.txt", "notes")
    client, run_id = MlflowClient(store), tracking.run_id
    assert run_id is not None
    assert "report.html" in {file.path for file in client.list_artifacts(run_id)}
    assert [file.path for file in client.list_artifacts(run_id, "notes")] == ["notes/mine.txt"]


def test_without_a_run_folder_the_result_is_there_and_nothing_stays_on_disk(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result, _ = tracked(store)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("gfb_brevitas")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "params.`search.rounds` = '2'")
    assert shows(points(client, parent), result.history)
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert names == {"allocation.json", "summary.json"}
    assert not list(tmp_path.glob("gfb-mlflow-*"))


def test_by_default_it_is_the_store_that_mlflow_ui_shows(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    with MlflowTracking(timeout_s=60) as tracking:
        result = run(callbacks=[tracking], run_folder=tmp_path / "run")
    assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.run_id is not None
    client = MlflowClient()
    assert shows(points(client, client.get_run(tracking.run_id)), result.history)


def test_the_load_of_the_machine_is_among_the_metrics(
    shared_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psutil", reason="psutil is not installed")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")

    class Pause:
        def on_round(self, record: Any) -> None:
            wait_for(lambda: len(list((tmp_path / "run" / "mlflow").glob("courier.jsonl"))))

    with MlflowTracking(shared_server.url, timeout_s=60) as tracking:
        run(callbacks=[tracking, Pause()], run_folder=tmp_path / "run")
    data = MlflowClient(shared_server.url).get_run(str(tracking.run_id)).data
    assert 0 <= data.metrics["system/cpu_utilization_percentage"] <= 100
    assert data.metrics["system/system_memory_usage_megabytes"] > 0


def test_it_nests_under_the_users_active_run_and_leaves_it_alone(store: str, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("mine")
    try:
        with mlflow.start_run(run_name="outer") as outer:
            _, run_id = tracked(store, run_folder=tmp_path / "run")
            active = mlflow.active_run()
            assert active is not None
            assert active.info.run_id == outer.info.run_id
            mlflow.log_metric("mine", 1.0)
    finally:
        mlflow.set_tracking_uri(None)
    client = MlflowClient(store)
    inner, outer = client.get_run(run_id), client.get_run(outer.info.run_id)
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert inner.info.experiment_id == outer.info.experiment_id
    assert outer.data.metrics == {"mine": 1.0}
    assert outer.info.status == "FINISHED"


def tell(tracking: MlflowTracking, result: SearchResult, folder: Path, seed: int) -> None:
    """What a search says to its callbacks, again."""
    configuration = {"search": {"seed": seed}}
    start = StartRecord(configuration=configuration, run_folder=folder, resumed=False, history=History())
    notify([tracking], start)
    for record in result.history:
        notify([tracking], record)
    notify([tracking], EndRecord(summary=result.summary(), run_folder=folder))


def test_searches_in_several_threads_do_not_mix(
    on_server: tuple[MlflowClient, SearchResult, str], shared_server: MlflowServer, tmp_path: Path
) -> None:
    client, result, _ = on_server
    found: dict[int, MlflowTracking] = {}

    def search(seed: int) -> None:
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        with MlflowTracking(shared_server.url, timeout_s=60) as tracking:
            tell(tracking, result, folder, seed)
        found[seed] = tracking

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = {seed: client.get_run(found[seed].run_id or "") for seed in range(3)}
    assert len({run.info.run_id for run in runs.values()}) == 3
    for seed, found_run in runs.items():
        assert found_run.data.params["search.seed"] == str(seed)
        assert shows(points(client, found_run), result.history)


def test_searches_in_several_processes_share_a_store_without_a_server(store: str, tmp_path: Path) -> None:
    script = """if True:
    import pathlib, sys
    from tests.core.search.small_problem import run
    from gfb_integrations.mlflow import MlflowTracking

    run(callbacks=[MlflowTracking(sys.argv[1], timeout_s=60)], run_folder=sys.argv[2])
    pathlib.Path(sys.argv[2], "report.html").touch()  # closed when the program ends
    """
    processes = [ForkedPython(script, store, tmp_path / name) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("gfb_brevitas")
    assert experiment is not None
    for name in "ab":
        (parent,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
        assert shows(points(client, parent), RecordedRun.load(tmp_path / name).history)
        assert parent.info.status == "FINISHED"
        assert "report.html" in {file.path for file in client.list_artifacts(parent.info.run_id)}


def test_a_server_on_postgresql(tmp_path: Path) -> None:
    try:
        with postgresql() as url, running(MlflowServer(tmp_path, url)) as server:
            result, run_id = tracked(server.url, run_folder=tmp_path / "run")
            found = all_points(MlflowClient(server.url), run_id)
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL: {reason}")
    assert sorted(found) == [*ROUNDS, "search"]
    assert shows(found["search"], result.history)


def test_an_error_of_the_search_is_a_run_that_failed(store: str, tmp_path: Path) -> None:
    class Faulty:
        def on_round(self, record: Any) -> None:
            raise RuntimeError("mine")

    tracking = MlflowTracking(store, timeout_s=60)
    with pytest.raises(RuntimeError, match="mine"), tracking:
        run(callbacks=[tracking, Faulty()], run_folder=tmp_path / "run")
    assert tracking.run_id is not None
    states = {n: r.info.status for n, r in runs_by_name(MlflowClient(store), tracking.run_id).items()}
    assert states == {"search": "FAILED", "pretraining": "FINISHED", "round-01": "FINISHED"}


def test_what_needs_a_search_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="No search was"):
        MlflowTracking().log_artifact(tmp_path / "file")
    with pytest.raises(ConfigurationError, match="There is no file"):
        MlflowTracking().log_artifact(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="at least 0"):
        MlflowTracking(timeout_s=-1)


@pytest.mark.parametrize("name", ["", "  ", "e" * 501, None])
def test_an_experiment_that_no_store_takes(name: str) -> None:
    with pytest.raises(ConfigurationError, match="`experiment` must be a name"):
        MlflowTracking(experiment=name)


def test_the_state_of_the_code_is_logged(store: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "search.py").write_text("1")
    for arguments in (("init",), ("add", "."), ("commit", "-m", "first")):
        git(project, *arguments)
    (project / "search.py").write_text("2")
    with MlflowTracking(store, timeout_s=60, project=project) as tracking:
        run(callbacks=[tracking])
    data = MlflowClient(store).get_run(str(tracking.run_id)).data
    commit = git(project, "rev-parse", "HEAD")
    assert data.params["git.commit"] == data.tags["mlflow.source.git.commit"] == commit
    assert data.params["git.branch"] == data.tags["mlflow.source.git.branch"] == "main"
    assert data.params["git.dirty"] == data.tags["gfb_brevitas.git.dirty"] == "true"


def test_the_run_to_nest_under_may_be_given(store: str, tmp_path: Path) -> None:
    client = MlflowClient(store)
    outer = client.create_run(client.create_experiment("mine"))
    with MlflowTracking(store, timeout_s=60, parent_run_id=outer.info.run_id) as tracking:
        run(callbacks=[tracking])
    inner = client.get_run(str(tracking.run_id))
    assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert inner.info.experiment_id == outer.info.experiment_id


def test_an_error_of_the_tracking_does_not_end_the_search(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Session, event: Event) -> None:
        raise RuntimeError("no such thing")

    with MlflowTracking(store, timeout_s=0) as tracking:
        monkeypatch.setattr(Session, "add", fails)
        result = run(callbacks=[tracking])
        monkeypatch.undo()
    assert len(result.history.rounds) == 2
    assert "Tracking with MLflow failed; the search goes on." in caplog.text


def test_what_interrupted_another_cell_of_a_notebook_did_not_kill_this_search(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "last_value", KeyboardInterrupt(), raising=False)

    def failing(model: Any) -> float:
        raise ValueError("nothing")

    with (
        pytest.raises(ValueError, match="nothing"),
        MlflowTracking(store, timeout_s=60) as tracking,
    ):
        run(callbacks=[tracking], metric=failing)
    assert MlflowClient(store).get_run(str(tracking.run_id)).info.status == "FAILED"
