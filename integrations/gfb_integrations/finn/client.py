"""A process with FINN, and talking to it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

from gfb_integrations.finn.environment import finn_python
from gfb_integrations.finn.failures import FinnBuildError, FinnError

WORKER = Path(__file__).with_name("worker")
START_TIMEOUT_S = 180.0


class FinnProcess:
    """FINN in a process of its own, which answers one request after the other.

    Starting takes a few seconds; a process that several requests share saves them. What FINN prints is kept
    in :attr:`log` until the process is closed.

    Example:
        >>> with FinnProcess() as process:  # doctest: +SKIP
        ...     process.call("estimate", model="model.onnx", output="out", settings=settings)

    Args:
        python: Python interpreter that has FINN; by default :func:`~.environment.finn_python`.

    Raises:
        MissingExtraError: If there is no FINN.
        FinnError: If the process does not start.
    """

    def __init__(self, python: Path | None = None) -> None:
        python = finn_python() if python is None else python
        self.folder = Path(mkdtemp(prefix="gfb-finn-"))
        # At the end of the program when nobody closes it.
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.log = self.folder / "log.txt"
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._turn = threading.Lock()  # one request at a time, whatever thread it comes from
        try:
            self._process = self._start(python)
            reply = self._receive(START_TIMEOUT_S, "its start")
            self.versions: dict[str, str] = self._result(reply, "its start")
        except BaseException:
            self.close()
            raise

    def _start(self, python: Path) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "FINN_BUILD_DIR": str(self.folder / "build"),
            "FINN_SETTINGS": str(self.folder / "settings.yaml"),
        }
        (self.folder / "build").mkdir()
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [str(python), "-I", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env=environment,
                text=True,
                encoding="utf-8",
                # Ctrl-C is for this process, which then closes that one.
                start_new_session=True,
            )
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def call(self, command: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Args:
            command: Name of the command.
            timeout_s: Longest time to wait, in seconds; without end by default. The process is closed then.
            arguments: Arguments of the command, as JSON holds them.

        Raises:
            FinnBuildError: If FINN refuses the model.
            FinnError: If the process has ended, or takes too long.
        """
        request = json.dumps({"command": command, **arguments})
        with self._turn:
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(request + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                raise self._ended(f"before {command!r}") from None
            try:
                reply = self._receive(timeout_s, repr(command))
            except (KeyboardInterrupt, FinnError):
                self.close()
                raise
        return self._result(reply, repr(command))

    def _receive(self, timeout_s: float | None, purpose: str) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=timeout_s)
        except queue.Empty:
            raise FinnError(
                f"FINN took longer than {timeout_s:g} seconds for {purpose}. Allow more with `timeout_s`."
            ) from None
        if line is None:
            raise self._ended(f"during {purpose}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _result(self, reply: dict[str, Any], purpose: str) -> Any:
        if reply["ok"]:
            return reply["result"]
        error = reply["error"]
        if error["kind"] == "stage":
            raise FinnBuildError(error["stage"], error["node"], error["message"])
        raise FinnError(f"FINN's process failed at {purpose}: {error['message']}\n{self._end_of_log()}")

    def _ended(self, when: str) -> FinnError:
        return FinnError(f"FINN's process ended {when}. The end of what it printed:\n{self._end_of_log()}")

    def _end_of_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log.exists() else ""

    def close(self) -> None:
        """End the process and remove its folder."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):  # what is left to write is for nobody
                        stream.close()
        self._remove_folder()

    def __enter__(self) -> FinnProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
