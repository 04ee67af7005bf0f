"""Stores and servers for tests with MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.mlflow.servers import MlflowServer, copied_store, make_empty_store, running


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a database without runs, to be copied."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    make_empty_store(path)
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """URL of a database file of one's own."""
    return copied_store(empty_store, tmp_path / "store")


@pytest.fixture(scope="session")
def shared_server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that stays up."""
    folder = tmp_path_factory.mktemp("server")
    with running(MlflowServer(folder, copied_store(empty_store, folder))) as server:
        yield server


@pytest.fixture
def own_server(empty_store: Path, tmp_path: Path) -> Iterator[MlflowServer]:
    """A server to be killed; not started."""
    folder = tmp_path / "server"
    server = MlflowServer(folder, copied_store(empty_store, folder))
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow as it is without environment variables, in a folder without a store."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
