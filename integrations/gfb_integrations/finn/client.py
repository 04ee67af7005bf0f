"""A process with FINN, and talking to it."""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Real
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any

from gfb_brevitas.errors import ConfigurationError, MissingExtraError
from gfb_integrations.finn.environment import finn_python, how_to_get_finn
from gfb_integrations.finn.failures import FinnBuildError, FinnError

WORKER = Path(__file__).with_name("worker")
START_TIMEOUT_S = 180.0


@contextmanager
def in_process(process: FinnProcess | None, timeout_s: float | None) -> Iterator[FinnProcess]:
    """The process to use, or else one for this ``with`` block.

    Raises:
        ConfigurationError: If it is no process, or the time limit no number above zero.
        FinnError: If it is closed.
    """
    if process is not None and not isinstance(process, FinnProcess):
        raise ConfigurationError(f"`process` must be a FinnProcess or None; got {process!r}.")
    _require_time_limit(timeout_s)
    if process is not None:
        if not process.folder.is_dir():
            raise FinnError("FINN's process has ended: it was closed, or took too long. Make another.")
        yield process
    else:
        with FinnProcess() as own:
            yield own


def _require_time_limit(timeout_s: float | None) -> None:
    is_number = isinstance(timeout_s, Real) and not isinstance(timeout_s, bool)
    if timeout_s is not None and not (is_number and 0 < timeout_s < math.inf):
        raise ConfigurationError(f"`timeout_s` must be a finite number above zero; got {timeout_s!r}.")


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
        MissingExtraError: If there is no FINN, or ``python`` has none.
        FinnError: If the process does not start.
    """

    def __init__(self, python: Path | None = None) -> None:
        self._python = finn_python() if python is None else Path(python)
        self.folder = Path(mkdtemp(prefix="gfb-finn-"))
        # At the end of the program when nobody closes it.
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.log = self.folder / "log.txt"
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._turn = threading.Lock()  # one request at a time, whatever thread it comes from
        try:
            self._process = self._start()
            self.versions: dict[str, str] = self._greeting()
        except BaseException:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "FINN_BUILD_DIR": str(self.folder / "build"),
            "FINN_SETTINGS": str(self.folder / "settings.yaml"),
            "TMPDIR": str(self.folder),  # it goes when the process does
        }
        (self.folder / "build").mkdir()
        try:
            with self.log.open("wb") as log:
                process = subprocess.Popen(
                    [str(self._python), "-I", str(WORKER), str(self.folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=self.folder,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    # Ctrl-C is for this process, which then closes that one.
                    start_new_session=True,
                )
        except OSError as error:
            raise FinnError(
                f"{str(self._python)!r} cannot be run ({error.strerror}). {how_to_get_finn(self._python)}"
            ) from error
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        try:
            with suppress(ValueError):  # closed meanwhile
                for line in process.stdout:
                    self._replies.put(line)
        finally:
            self._replies.put(None)

    def _greeting(self) -> dict[str, str]:
        """The versions that the process begins with, behind what the interpreter may print at its start."""
        end = time.monotonic() + START_TIMEOUT_S
        printed: list[str] = []
        while True:
            try:
                line = self._replies.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise self._not_started(
                    f"did not start within {START_TIMEOUT_S:g} seconds", printed
                ) from None
            if line is None:
                raise self._not_started("ended at its start", printed)
            reply = _reply(line)
            if reply is None:
                printed.append(line)
            elif not reply["ok"] and reply["error"]["kind"] == "no FINN":
                raise MissingExtraError(
                    f"{str(self._python)!r} cannot import FINN: {reply['error']['message']}. "
                    f"{how_to_get_finn(self._python)}"
                )
            else:
                versions: dict[str, str] = self._result(reply, "its start")
                return versions

    def _not_started(self, what: str, printed: list[str]) -> FinnError:
        said = ("".join(printed) + self._end_of_log()).strip()[-2000:]
        return FinnError(
            f"FINN's process, of {str(self._python)!r}, {what}. {how_to_get_finn(self._python)}"
            + (f"\nIt printed:\n{said}" if said else "")
        )

    def call(self, command: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Args:
            command: Name of the command.
            timeout_s: Longest time to wait, in seconds; without end by default. The process is closed then.
            arguments: Arguments of the command, as JSON holds them.

        Raises:
            FinnBuildError: If FINN refuses the model.
            FinnError: If the process has ended, or takes too long.
            ConfigurationError: If ``timeout_s`` is no number above zero.
        """
        _require_time_limit(timeout_s)
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
        reply = _reply(line)
        if reply is None:
            raise FinnError(
                f"FINN's process answered {purpose} with {line.strip()!r:.200}, which is no reply."
            )
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


def _reply(line: str) -> dict[str, Any] | None:
    """A line as a reply, or ``None`` where it is something else."""
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) and isinstance(reply.get("ok"), bool) else None
