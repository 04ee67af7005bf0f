"""Real databases for tests and benchmarks: SQLite and journal files, and a private PostgreSQL server."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import optuna
from sqlalchemy.pool import NullPool

POSTGRESQL_BINARIES = "/usr/lib/postgresql/*/bin"


class NoPostgresql(Exception):  # noqa: N818 - says why
    """There is no PostgreSQL to use."""


def make_storage(place: str, *, pooled: bool = False) -> optuna.storages.BaseStorage:
    """A storage object of its own for a URL; ``journal:///FILE`` for a journal file, ``memory`` for none."""
    if place == "memory":
        return optuna.storages.InMemoryStorage()
    if place.startswith("journal:///"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            backend = optuna.storages.journal.JournalFileBackend(place.removeprefix("journal:///"))
            return optuna.storages.JournalStorage(backend)
    # Without a pool: psycopg warns of connections that are left open.
    unpooled = {} if pooled else {"poolclass": NullPool}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(place, engine_kwargs=unpooled))


@contextmanager
def postgresql() -> Iterator[str]:
    """URL of an empty database, of the server in ``GFB_POSTGRES_URL`` or of one that is started for it.

    Raises:
        NoPostgresql: Saying why.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise NoPostgresql("its driver psycopg is not installed") from error
    given = os.environ.get("GFB_POSTGRES_URL")
    if given:
        yield from _own_schema(given)
        return
    with tempfile.TemporaryDirectory(prefix="gfb-pg-") as folder, _server(Path(folder)) as url:
        yield url


def _own_schema(url: str) -> Iterator[str]:
    import sqlalchemy

    engine, name = sqlalchemy.create_engine(url), f"gfb_{uuid4().hex[:12]}"
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA {name}"))
    try:
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    binaries = sorted(glob.glob(POSTGRESQL_BINARIES))
    found = shutil.which("initdb")
    directory = Path(found).parent if found else Path(binaries[-1]) if binaries else None
    if directory is None:
        raise NoPostgresql("no server is installed, and GFB_POSTGRES_URL is not set")
    user = _user_to_run_as(folder)
    data, socket = folder / "data", str(folder)
    options = f"-k {socket} -c listen_addresses='' -c max_connections=100"
    control = [*user, str(directory / "pg_ctl"), "-D", str(data)]
    _call([*user, str(directory / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"])
    _call([*control, "-o", options, "-l", str(folder / "log"), "-w", "start"])
    try:
        yield f"postgresql+psycopg://postgres@/postgres?host={socket}"
    finally:
        _call([*control, "-m", "immediate", "stop"])


def _user_to_run_as(folder: Path) -> list[str]:
    """A prefix for commands: the server refuses to be run by root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    try:
        shutil.chown(folder, "postgres")
    except LookupError as error:
        raise NoPostgresql("a server is not run by root, and there is no user postgres") from error
    return ["runuser", "-u", "postgres", "--"]


def _call(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/")
    if result.returncode:
        raise NoPostgresql(f"{Path(command[-1]).name} failed: {result.stderr.strip()[-200:]}")
