"""Servers that are away, slow or dying, and searches that are killed: nothing is lost, doubled or held up."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from gfb_integrations.mlflow import MlflowTracking
from gfb_integrations.mlflow.cli import app
from gfb_integrations.mlflow.spool import EventFile, is_delivered, read_lines
from tests.core.search.small_problem import comparable, run
from tests.forked_python import completed_python
from tests.integrations.mlflow.reading import SQLALCHEMY, all_points, points, runs_by_name, shows, wait_for
from tests.integrations.mlflow.servers import MlflowServer, copied_store, free_port

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings(SQLALCHEMY)


class AtGeneration:
    """Does something at a generation, counted over the search."""

    def __init__(self, actions: dict[int, Any]) -> None:
        self._actions, self._generations = actions, 0

    def on_generation(self, record: Any) -> None:
        self._generations += 1
        if self._generations in self._actions:
            self._actions[self._generations]()


def test_a_server_that_dies_and_comes_back_has_everything_once(
    own_server: MlflowServer, tmp_path: Path
) -> None:
    client = MlflowClient(own_server.url)
    tracking = MlflowTracking(own_server.url, timeout_s=60)
    own_server.start()

    def some_are_there() -> bool:
        run_id = tracking.run_id
        return run_id is not None and "generation/best_value" in client.get_run(run_id).data.metrics

    def die() -> None:
        wait_for(some_are_there)
        own_server.kill()

    actions = AtGeneration({2: die, 9: own_server.start})
    with tracking:
        result = run(callbacks=[tracking, actions], run_folder=tmp_path / "run")
    found = all_points(client, str(tracking.run_id))
    assert sorted(found) == ["pretraining", "round-01", "round-02", "search"]
    assert shows(found["search"], result.history)


def killed_at(moment: int, folder: Path, uri: str) -> None:
    """A search in a process of its own, which is killed at a generation."""
    script = """if True:
    import os, signal, sys
    from tests.core.search.small_problem import run
    from tests.integrations.mlflow.test_faults import AtGeneration
    from gfb_integrations.mlflow import MlflowTracking

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    actions = AtGeneration({int(sys.argv[1]): die})
    run(callbacks=[MlflowTracking(sys.argv[3]), actions], run_folder=sys.argv[2])
    """
    process = completed_python(script, moment, folder, uri)
    assert process.returncode == -signal.SIGKILL, process.stderr


def states(client: MlflowClient, run_id: str) -> dict[str, str]:
    return {name: run.info.status for name, run in runs_by_name(client, run_id).items()}


def test_a_search_that_is_killed_goes_on_in_the_same_runs(
    shared_server: MlflowServer, tmp_path: Path
) -> None:
    client, folder = MlflowClient(shared_server.url), tmp_path / "run"
    killed_at(8, folder, shared_server.url)
    wait_for(lambda: is_delivered(folder / "mlflow"))
    state = json.loads((folder / "mlflow" / "delivered.json").read_text())
    run_id = state["runs"]["search"]
    wait_for(lambda: "RUNNING" not in states(client, run_id).values())
    before = runs_by_name(client, run_id)
    assert states(client, run_id) == {
        "search": "KILLED",
        "pretraining": "FINISHED",
        "round-01": "FINISHED",
        "round-02": "KILLED",
    }
    with MlflowTracking(shared_server.url, timeout_s=60) as tracking:
        result = run(callbacks=[tracking], run_folder=folder, resume=True)
    assert tracking.run_id == run_id
    found = all_points(client, run_id)
    assert shows(found["search"], result.history)
    after = runs_by_name(client, run_id)
    assert set(states(client, run_id).values()) == {"FINISHED"}
    assert {r.info.run_id for r in before.values()} <= {r.info.run_id for r in after.values()}


def test_what_a_killed_search_did_not_write_down_comes_from_its_history(store: str, tmp_path: Path) -> None:
    """As if the machine's power had gone: events that were not on disk yet are lost."""
    folder = tmp_path / "run"
    with MlflowTracking(store, timeout_s=60) as tracking:
        result = run(callbacks=[tracking], run_folder=folder)
    run_id = str(tracking.run_id)
    rounds = runs_by_name(MlflowClient(store), run_id).keys()
    events = folder / "mlflow" / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:10])
    (folder / "mlflow" / "delivered.json").unlink()  # neither is what was delivered
    with MlflowTracking(store, timeout_s=60) as again:
        run(callbacks=[again], run_folder=folder, resume=True)
    assert again.run_id == run_id
    client = MlflowClient(store)
    assert runs_by_name(client, run_id).keys() == rounds
    found = points(client, client.get_run(run_id))
    steps = [step for step, _ in found["generation/best_value"]]
    assert sorted(set(steps)) == list(range(1, len(result.history.generations) + 1))


@pytest.mark.parametrize("damaged", ["run/search", "run/round-01", "params", "epoch/2@search"])
def test_everything_but_a_damaged_line_is_delivered(store: str, tmp_path: Path, damaged: str) -> None:
    folder = tmp_path / "run"
    with MlflowTracking(f"http://127.0.0.1:{free_port()}", timeout_s=0) as tracking:
        result = run(callbacks=[tracking], run_folder=folder)
    events = folder / "mlflow" / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if json.loads(line).get("id") == damaged)
    lines[place] = lines[place].replace(b"kind", b"kink")
    events.write_bytes(b"".join(lines))
    delivered = CliRunner().invoke(app, ["deliver", str(folder), "--tracking-uri", store])
    assert delivered.exit_code == 0, delivered.output
    assert "1 damaged lines are left out" in delivered.output
    run_id = json.loads((folder / "mlflow" / "delivered.json").read_text())["runs"]["search"]
    client = MlflowClient(store)
    assert set(runs_by_name(client, run_id)) == {"search", "pretraining", "round-01", "round-02"}
    found = all_points(client, run_id)["search"]
    if damaged == "epoch/2@search":
        assert [step for step, _ in found["epoch/metric"]] == [1, 3, 4, 5]
    else:
        assert shows(found, result.history)


def test_files_of_others_in_the_spool_s_place_stay(tmp_path: Path, store: str) -> None:
    place = tmp_path / "run" / "mlflow"
    place.mkdir(parents=True)
    (place / "mlflow.db").write_text("weeks of other experiments")
    (place / "events.jsonl").write_text("of a run that is not there\n")
    with MlflowTracking(store, timeout_s=60) as tracking:
        result = run(callbacks=[tracking], run_folder=tmp_path / "run")
    assert (place / "mlflow.db").read_text() == "weeks of other experiments"
    client = MlflowClient(store)
    assert shows(points(client, client.get_run(str(tracking.run_id))), result.history)


def test_no_password_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"

    def wait_for_the_failure() -> None:
        wait_for(lambda: "MLflow does not take events" in (folder / "run.log").read_text())

    with MlflowTracking(f"http://me:SECRET@127.0.0.1:{free_port()}/", timeout_s=4) as tracking:
        run(callbacks=[tracking, AtGeneration({3: wait_for_the_failure})], run_folder=folder)
    for path in folder.rglob("*"):
        assert path.is_dir() or b"SECRET" not in path.read_bytes(), path
    assert "SECRET" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("interval", ["", "often"])
def test_without_the_machine_s_load_all_else_is_delivered(
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    interval: str,
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", interval)
    with MlflowTracking(store, timeout_s=60, tags={"path": Path("/x"), 3: 4}) as tracking:  # type: ignore[dict-item]
        result = run(callbacks=[tracking], run_folder=tmp_path / "run")
    client = MlflowClient(store)
    found = client.get_run(str(tracking.run_id))
    assert shows(points(client, found), result.history)
    assert found.data.tags["path"] == "/x" and found.data.tags["3"] == "4"
    assert ("load is not logged any more: ValueError" in caplog.text) == bool(interval)


def test_a_courier_that_is_killed_is_replaced(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = MlflowTracking(store, timeout_s=60)

    def kill_courier() -> None:
        wait_for(lambda: tracking.run_id)
        pid = tracking.courier_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    with tracking:
        actions = AtGeneration({2: kill_courier})
        result = run(callbacks=[tracking, actions], run_folder=tmp_path / "run")
    assert caplog.text.count("The process that delivers to MLflow ended with -9") == 1
    client = MlflowClient(store)
    assert shows(points(client, client.get_run(str(tracking.run_id))), result.history)


def test_without_a_server_the_search_is_the_same_and_gfb_mlflow_deliver_catches_up(
    own_server: MlflowServer, empty_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    with MlflowTracking(own_server.url, timeout_s=1) as tracking:
        result = run(callbacks=[tracking], run_folder=folder)
    assert not tracking.close()
    assert tracking.run_id is None
    assert f"gfb mlflow deliver {folder}" in caplog.text
    assert comparable(result) == comparable(run(name="run"))

    shell = CliRunner()
    failed = shell.invoke(app, ["deliver", str(folder), "--timeout", "1"])
    assert failed.exit_code == 1
    assert "does not take events (API request" in failed.output
    assert "Connection refused" in failed.output
    own_server.start()
    delivered = shell.invoke(app, ["deliver", str(folder)])
    assert delivered.exit_code == 0, delivered.output
    run_id = json.loads((folder / "mlflow" / "delivered.json").read_text())["runs"]["search"]
    client = MlflowClient(own_server.url)
    assert shows(all_points(client, run_id)["search"], result.history)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert "already" in shell.invoke(app, ["deliver", str(folder)]).output
    assert len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 4

    # The server comes back with an empty store: what is on disk is written anew.
    own_server.kill()
    own_server.use(copied_store(empty_store, tmp_path / "second"))
    own_server.start()
    again = shell.invoke(app, ["deliver", str(folder), "--tracking-uri", own_server.url])
    assert again.exit_code == 0, again.output
    run_id = json.loads((folder / "mlflow" / "delivered.json").read_text())["runs"]["search"]
    assert shows(all_points(client, run_id)["search"], result.history)


def test_a_server_that_hangs_holds_nothing_up(own_server: MlflowServer, tmp_path: Path) -> None:
    """It takes connections and answers nothing, from the fourth generation on."""
    own_server.start()
    folder = tmp_path / "run"
    tracking = MlflowTracking(own_server.url, timeout_s=1)
    seconds: list[float] = []

    class Clock:
        def on_generation(self, record: Any) -> None:
            seconds.append(record.seconds)

    actions = AtGeneration({4: own_server.pause})
    try:
        result = run(callbacks=[tracking, actions, Clock()], run_folder=folder)
        began = time.monotonic()
        tracking.close()
        assert time.monotonic() - began < 1 + 5
    finally:
        own_server.go_on()
    assert not is_delivered(folder / "mlflow")
    assert max(seconds[4:]) < 5
    delivered = CliRunner().invoke(app, ["deliver", str(folder)])
    assert delivered.exit_code == 0, delivered.output
    run_id = json.loads((folder / "mlflow" / "delivered.json").read_text())["runs"]["search"]
    assert shows(all_points(MlflowClient(own_server.url), run_id)["search"], result.history)


def test_events_that_the_disk_does_not_take_are_written_when_it_does(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventFile(path)
    assert events.append({"kind": "tags", "id": "first"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
        with pytest.raises(OSError, match="too large"):
            events.append({"kind": "tags", "id": "second"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [line.event["id"] for line in read_lines(path) if line.event] == ["first"]
    assert events.append({"kind": "tags", "id": "third"})
    assert not events.append({"kind": "tags", "id": "second"}), "each once"
    assert [line.event["id"] for line in read_lines(path) if line.event] == ["first", "second", "third"]


def test_a_part_of_a_line_is_cut_off_and_a_damaged_line_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventFile(path).append({"kind": "tags", "id": "first"})
    path.write_bytes(path.read_bytes() + b'\0\0\n[1]\n{"kind":"ta')
    assert [line.event is None for line in read_lines(path)] == [False, True, True]
    events = EventFile(path)
    events.append({"kind": "tags", "id": "second"})
    assert [line.event["id"] for line in read_lines(path) if line.event] == ["first", "second"]


@pytest.mark.parametrize("deleted", ["run", "experiment"])
def test_what_is_deleted_meanwhile_gets_the_rest_when_it_is_restored(
    store: str, tmp_path: Path, deleted: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, folder = MlflowClient(store), tmp_path / "run"
    tracking = MlflowTracking(store, timeout_s=8)

    def experiment() -> str:
        return str(client.get_run(str(tracking.run_id)).info.experiment_id)

    def delete() -> None:
        wait_for(lambda: tracking.run_id)
        if deleted == "run":
            client.delete_run(str(tracking.run_id))
        else:
            client.delete_experiment(experiment())

    with tracking:
        result = run(callbacks=[tracking, AtGeneration({4: delete})], run_folder=folder)
    assert not is_delivered(folder / "mlflow")
    assert "was deleted; restore it" in caplog.text and "refuses" not in caplog.text
    if deleted == "run":
        client.restore_run(str(tracking.run_id))
    else:
        client.restore_experiment(experiment())
    delivered = CliRunner().invoke(app, ["deliver", str(folder)])
    assert delivered.exit_code == 0, delivered.output
    assert shows(points(client, client.get_run(str(tracking.run_id))), result.history)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_says_nothing_about_the_search(store: str, tmp_path: Path) -> None:
    def fork() -> None:
        if os.fork() == 0:
            tracking.close("FAILED")
            os._exit(0)
        os.wait()

    with MlflowTracking(store, timeout_s=60) as tracking:
        result = run(callbacks=[tracking, AtGeneration({2: fork})], run_folder=tmp_path / "run")
    client = MlflowClient(store)
    found = client.get_run(str(tracking.run_id))
    assert found.info.status == "FINISHED" and shows(points(client, found), result.history)
    assert "FAILED" not in (tmp_path / "run" / "mlflow" / "events.jsonl").read_text()
