"""Small things of the spool and of what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Metric
from typer.testing import CliRunner

from gfb_brevitas.extras import install_command
from gfb_integrations.mlflow.cli import app
from gfb_integrations.mlflow.delivery import Delivery
from gfb_integrations.mlflow.lock import Lock
from gfb_integrations.mlflow.spool import (
    Delivered,
    Event,
    EventFile,
    absolute,
    read_lines,
    without_password,
)
from tests.core.faults.damage import flipped, truncated

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "uri, shown",
    [
        ("https://user:secret@host:5000/path", "https://user@host:5000/path"),
        ("postgresql://user:secret@host/db", "postgresql://user@host/db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("databricks", "databricks"),
        ("http://user:p:w@host/x failed", "http://user@host/x failed"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("http://host/a@b:c@d", "http://host/a@b:c@d"),
    ],
)
def test_passwords_are_not_written_to_disk(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_addresses_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute("mlruns") == (tmp_path / "mlruns").as_uri()
    for relative in ("file:./mlruns", "file:mlruns", "file:./a/../mlruns", "mlruns"):
        assert absolute(relative) == (tmp_path / "mlruns").as_uri()
    assert absolute("file:/data/my%20runs") == absolute("/data/my runs") == "file:///data/my%20runs"
    assert absolute("sqlite+pysqlite:///a.db?mode=ro") == f"sqlite+pysqlite:///{tmp_path}/a.db?mode=ro"
    for uri in ("uc:databricks", "sqlite://", "sqlite:///:memory:", "file:///data/x", "mysql://host/db"):
        assert absolute(uri) == uri
    for uri in ("sqlite:////tmp/mlflow.db", "http://127.0.0.1:5000", "databricks", "databricks://profile"):
        assert absolute(uri) == uri


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    for content in ("", "[]", '{"uri": 1}', '{"runs": [1]'):
        (tmp_path / "delivered.json").write_text(content)
        assert Delivered.load(tmp_path).runs == {}


def test_the_courier_does_without_pytorch() -> None:
    script = "import sys, gfb_integrations.mlflow.courier; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_without_mlflow_the_error_has_the_install_command() -> None:
    script = """if True:
    import sys
    sys.modules["mlflow"] = None
    from gfb_integrations.mlflow import MlflowTracking
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert "MissingExtraError" in done.stderr
    assert install_command("mlflow") in done.stderr


def test_a_folder_without_events_is_an_error(tmp_path: Path) -> None:
    failed = CliRunner().invoke(app, ["deliver", str(tmp_path)])
    assert failed.exit_code == 1
    assert "holds nothing that was tracked" in failed.output


def spooled(path: Path) -> list[Event]:
    """A file of events as a search makes it."""
    events: list[Event] = [
        {"kind": "run", "run": "search", "name": "é/\u2028", "tags": {"a": "b"}, "id": "run/search"},
        {"kind": "metrics", "run": "search", "step": 1, "values": {"loss": 1e-7, "x": 3.0}, "id": "m/1"},
        {"kind": "status", "run": "search", "status": "FINISHED", "id": "end"},
    ]
    file = EventFile(path)
    for event in events:
        file.append(event)
    return events


def test_a_damaged_event_is_left_out_and_never_another_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = spooled(path)
    assert [line.event for line in read_lines(path)] == events
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(2_000):
        path.write_bytes(flipped(data, rng) if rng.random() < 0.7 else truncated(data, rng))
        assert all(line.event is None or line.event in events for line in read_lines(path))
        again = EventFile(path)
        again.append({"kind": "tags", "run": "search", "values": {}})
        assert read_lines(path)[-1].event == {"kind": "tags", "run": "search", "values": {}}


def test_a_damaged_state_is_none_and_never_another_one(tmp_path: Path) -> None:
    later: list[Event] = [{"kind": "file", "run": "search", "path": "x"}]
    state = Delivered("sqlite:///x", "1", {"search": "abc"}, {"events.jsonl": 1234}, later)
    state.save(tmp_path)
    assert Delivered.load(tmp_path) == state
    path, rng = tmp_path / "delivered.json", np.random.default_rng(0)
    data = path.read_bytes()
    for _ in range(1_000):
        path.write_bytes(flipped(data, rng))
        assert Delivered.load(tmp_path) in (state, Delivered(None, None, {}, {}, []))


def test_what_cannot_be_written_down_is_not_taken_for_written(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "events.jsonl")
    with pytest.raises(TypeError):
        file.append({"kind": "tags", "run": "search", "values": {"path": Path("/x")}, "id": "t"})
    assert file.append({"kind": "tags", "run": "search", "values": {"path": "/x"}, "id": "t"})


class _Stored:
    """As much of a client as tells what is stored."""

    def get_metric_history(self, run_id: str, name: str) -> list[Metric]:
        return [Metric("loss", 0.5, timestamp, step) for timestamp, step in ((10, 1), (20, 2))]


def test_what_is_stored_of_repeated_metrics_is_left_out(tmp_path: Path) -> None:
    delivery = Delivery(tmp_path, f"sqlite:///{tmp_path}/none.db")
    delivery._client = _Stored()  # type: ignore[assignment]
    metrics = [
        Metric("loss", 0.5, timestamp, step) for timestamp, step in ((10, 1), (20, 2), (20, 3), (30, 2))
    ]
    assert [(m.timestamp, m.step) for m in delivery._missing("id", metrics)] == [(20, 3), (30, 2)]


def test_one_courier_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "courier.lock"
    hold = "import sys\nfrom pathlib import Path\nfrom gfb_integrations.mlflow.lock import Lock\n"
    hold += "lock = Lock(Path(sys.argv[1]))\nprint(lock.acquire(), flush=True)\nsys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "integrations")}
    program = [sys.executable, "-c", hold, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(program, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == "True\n"
        own = Lock(path)
        assert not own.acquire()
        holder.kill()
        holder.wait()
    assert own.acquire()
    own.release()
