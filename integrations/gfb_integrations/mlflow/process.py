"""Starts the courier, keeps it going, and hears from it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

import gfb_brevitas
import gfb_integrations
from gfb_integrations.mlflow.courier import ALL_DELIVERED, Mission
from gfb_integrations.mlflow.spool import LOG, without_password

_logger = logging.getLogger("gfb_brevitas.mlflow")  # in the run's log, too
_MOST_STARTS = 5  # within an hour
_AN_HOUR_S = 3600.0
_BETWEEN_STARTS_S = 10.0
_GRACE_S = 3.0


class CourierProcess:
    """A courier that is started again when it dies.

    Args:
        mission: What it is to do; the process id of the search is filled in.
    """

    def __init__(self, mission: Mission) -> None:
        self._mission = mission
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._starts: deque[float] = deque(maxlen=_MOST_STARTS)
        self._told_of: int | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, while it lives."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def keep_alive(self) -> None:
        """Start it, unless it is there; a few times an hour at most."""
        if self.pid is not None:
            return
        self._tell_of_its_end()
        now = time.monotonic()
        too_soon = self._starts and now - self._starts[-1] < _BETWEEN_STARTS_S
        too_often = len(self._starts) == _MOST_STARTS and now - self._starts[0] < _AN_HOUR_S
        if not (too_soon or too_often):
            self._start()

    def _start(self) -> None:
        self._reap()
        self._starts.append(time.monotonic())
        try:
            self._process, self._listener = start(replace(self._mission, parent=os.getpid()), _log)
        except (OSError, RuntimeError) as error:  # no process, or no thread while Python ends
            _logger.warning("The process that delivers to MLflow cannot be started: %s", error)

    def _tell_of_its_end(self) -> None:
        """Say once that it died, and what its last words were."""
        if self._process is None or self._process.pid == self._told_of:
            return
        self._told_of = self._process.pid
        log = Path(self._mission.folder) / LOG
        _logger.warning(
            "The process that delivers to MLflow ended with %s (%s; see %s). Events are kept on disk; it is "
            "started again at most %d times an hour.",
            *(self._process.returncode, _last_line(log) or "without a word", log, _MOST_STARTS),
        )

    def close(self, timeout_s: float) -> None:
        """Have it deliver what is left, for so many seconds at most."""
        if self.pid is None:
            self._tell_of_its_end()
            self._start()
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(f"close {timeout_s}\n")
            self._process.stdin.flush()
            self._process.wait(timeout_s + _GRACE_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
        finally:
            self._reap()

    def _reap(self) -> None:
        if self._process is None:
            return
        _close(self._process.stdin)
        self._process.wait()
        if self._listener is not None:
            self._listener.join(_GRACE_S)  # a process of its own may hold the stream
        _close(self._process.stdout)
        self._process = None


def deliver(
    folder: Path, uri: str, timeout_s: float, say: Callable[[int, str], None], cwd: Path | None = None
) -> bool:
    """Deliver what is left in a spool; whether all of it was.

    Args:
        folder: The spool.
        uri: The server or store.
        timeout_s: Seconds to try for.
        say: Called with the level and text of what there is to say.
        cwd: The folder that the search ran in, to which a store may put artifacts relative.
    """
    mission = Mission(folder=str(folder), session="", uri=uri, parent=None, close_s=timeout_s)
    process, listener = start(mission, say, cwd)
    try:
        return process.wait(timeout_s + 60.0) == ALL_DELIVERED
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
        return False
    finally:
        _close(process.stdin)
        listener.join(_GRACE_S)
        _close(process.stdout)


def start(
    mission: Mission, say: Callable[[int, str], None], cwd: Path | None = None
) -> tuple[subprocess.Popen[str], threading.Thread]:
    """Start a courier.

    Raises:
        OSError: If there can be no process.
    """
    folder = Path(mission.folder)
    folder.mkdir(parents=True, exist_ok=True)
    roots = (str(Path(str(package.__file__)).parents[1]) for package in (gfb_integrations, gfb_brevitas))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (*roots, os.environ.get("PYTHONPATH")))),
        "MLFLOW_TRACKING_URI": mission.uri,
        # One attempt at a time: what happened to it is looked up before the next.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "30"),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("MLFLOW_RUN_ID", None)
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            # -P: modules of the user's folder do not take the place of others.
            [sys.executable, "-P", "-m", "gfb_integrations.mlflow.courier"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd=cwd,
            start_new_session=True,  # Ctrl-C is for the search
        )
    listener = threading.Thread(target=_listen, args=(process.stdout, say), daemon=True)
    listener.start()
    assert process.stdin is not None
    # The address goes this way, since a command line is seen by all users and may hold a password.
    process.stdin.write(mission.to_line())
    process.stdin.flush()
    return process, listener


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return without_password(lines[-1])[:300] if lines else ""


def _listen(stream: IO[str] | None, say: Callable[[int, str], None]) -> None:
    for line in stream or ():
        try:
            message = json.loads(line)
            say(int(message["level"]), str(message["text"]))
        except (ValueError, KeyError, TypeError):
            continue


def _log(level: int, text: str) -> None:
    _logger.log(level, "%s", text)


def _close(stream: IO[str] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:  # what was to be written found nobody
        pass
