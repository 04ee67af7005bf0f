"""Small things of the spool and of what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gfb_integrations.mlflow.cli import app
from gfb_integrations.mlflow.spool import Delivered, absolute, without_password

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "uri, shown",
    [
        ("https://user:secret@host:5000/path", "https://user@host:5000/path"),
        ("postgresql://user:secret@host/db", "postgresql://user@host/db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_passwords_are_not_written_to_disk(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_addresses_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute("mlruns") == (tmp_path / "mlruns").as_uri()
    for uri in ("sqlite:////tmp/mlflow.db", "http://127.0.0.1:5000", "databricks", "databricks://profile"):
        assert absolute(uri) == uri


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    for content in ("", "[]", '{"uri": 1}', '{"runs": [1]'):
        (tmp_path / "delivered.json").write_text(content)
        assert Delivered.load(tmp_path).runs == {}


def test_the_courier_does_without_pytorch() -> None:
    script = "import sys, gfb_integrations.mlflow.courier; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "integrations")}
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
    assert "pip install 'gfb-brevitas[mlflow]'" in done.stderr


def test_a_folder_without_events_is_an_error(tmp_path: Path) -> None:
    failed = CliRunner().invoke(app, ["deliver", str(tmp_path)])
    assert failed.exit_code == 1
    assert "holds nothing that was tracked" in failed.output
