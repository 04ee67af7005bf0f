"""Real databases for tests and benchmarks: SQLite and journal files, and a private PostgreSQL server."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from sqlalchemy.pool import NullPool

POSTGRESQL_BINARIES = "/usr/lib/postgresql/*/bin"


Studies = dict[str, list[tuple[Any, ...]]]


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


def everything_but_times(place: str) -> Studies:
    """What is in a storage."""
    storage = make_storage(place)
    names = optuna.get_all_study_names(storage)
    return {
        name: [
            (t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs, t.constraints)
            for t in optuna.load_study(study_name=name, storage=storage).trials
        ]
        for name in names
    }


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
    with postgresql_server() as server:
        yield server.url


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A private server with an empty database.

    Raises:
        NoPostgresql: Saying why there is none.
    """
    with tempfile.TemporaryDirectory(prefix="gfb-pg-") as folder:
        server = PostgresqlServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.stop()


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


class PostgresqlServer:
    """A server that can be killed and frozen.

    Args:
        folder: Where its data and its socket are.
    """

    def __init__(self, folder: Path) -> None:
        binaries = sorted(glob.glob(POSTGRESQL_BINARIES))
        found = shutil.which("initdb")
        directory = Path(found).parent if found else Path(binaries[-1]) if binaries else None
        if directory is None:
            raise NoPostgresql("no server is installed, and GFB_POSTGRES_URL is not set")
        user = _user_to_run_as(folder)
        self.url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
        self._folder, self._data = folder, folder / "data"
        self._control = [*user, str(directory / "pg_ctl"), "-D", str(self._data)]
        initdb = [*user, str(directory / "initdb"), "-D", str(self._data)]
        _call([*initdb, "-A", "trust", "-U", "postgres", "--no-sync"])

    def start(self) -> None:
        """Start it, also after it was killed, and wait until it answers."""
        options = f"-k {self._folder} -c listen_addresses='' -c max_connections=100"
        _call([*self._control, "-o", options, "-l", str(self._folder / "log"), "-w", "start"])

    def stop(self) -> None:
        """End it at once; nothing if it does not run."""
        if (self._data / "postmaster.pid").exists():
            _call([*self._control, "-m", "immediate", "stop"])

    def kill(self) -> None:
        """Kill it and all its processes with SIGKILL."""
        processes = self._processes()
        for process in processes:
            _signal(process, signal.SIGKILL)
        while any(_is_there(process) for process in processes):
            time.sleep(0.01)
        # Nobody may have waited for the dead process, whose number then counts as in use.
        for lock in (self._data / "postmaster.pid", self._folder / ".s.PGSQL.5432.lock"):
            lock.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop all its processes where they are: connections stay open and are not answered."""
        for process in self._processes():
            _signal(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for process in self._processes():
            _signal(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        pid = self._data / "postmaster.pid"
        if not pid.exists():
            return []
        parent = int(pid.read_text().split()[0])
        return [parent, *_children(parent)]


def _children(parent: int) -> list[int]:
    children = []
    for status in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = Path(status).read_text()
        except OSError:  # it has ended
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            children.append(int(text.split()[0]))
    return children


def _is_there(process: int) -> bool:
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def _signal(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


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
