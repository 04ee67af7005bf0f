"""``python -c`` without its start: programs in processes forked from one that has imported the packages.

Starting an interpreter and importing PyTorch, Brevitas and Optuna takes seconds, more than many a program
under test. The server that forks is Python's own (:mod:`multiprocessing.forkserver`), one a test process.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any

PRELOADED = (
    "brevitas.nn",
    "gfb_brevitas.cli.app",
    "gfb_brevitas.configuration.running",
    "gfb_brevitas.report",
    "gfb_brevitas.search.run",
    "optuna.storages",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
    "torch._inductor.compile_fx",
)
"""Imported once, before the programs; none of them depends on the environment or the current folder."""


class ForkedPython:
    """A running program, with the parts of :class:`subprocess.Popen` that the tests use.

    Args:
        code: The program, as after ``python -c``.
        arguments: Its ``sys.argv[1:]``.
        cwd: Its current folder; by default that of this process.
        env: Its environment; by default that of this process. Variables that Python itself reads at its start
            do nothing, but for PYTHONPATH.
        stdin, stdout, stderr: ``subprocess.PIPE`` for a pipe of text, ``subprocess.DEVNULL``, or (not the
            first) ``None`` for that of this process.
    """

    def __init__(
        self,
        code: str,
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.stdin, inp = _writer() if stdin == subprocess.PIPE else (None, os.open(os.devnull, os.O_RDONLY))
        self.stdout, out = _reader(stdout, 1)
        self.stderr, err = _reader(stderr, 2)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self._process = context.Process(
            target=_run,
            args=(code, list(map(str, arguments)), str(cwd or Path.cwd()), dict(env or os.environ)),
            kwargs={"streams": _Streams(inp, out, err)},
        )
        self._process.start()
        for number in (inp, out, err):
            os.close(number)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def __enter__(self) -> ForkedPython:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    @property
    def returncode(self) -> int | None:
        """See :attr:`subprocess.Popen.returncode`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See :meth:`subprocess.Popen.poll`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """See :meth:`subprocess.Popen.wait`."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked program", timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """See :meth:`subprocess.Popen.communicate`."""
        texts = {}
        if self.stdin is not None:
            self.stdin.close()

        def read(name: str, stream: IO[str]) -> None:
            with stream:
                texts[name] = stream.read()

        streams = {"out": self.stdout, "err": self.stderr}
        readers = [threading.Thread(target=read, args=(n, s)) for n, s in streams.items() if s is not None]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            for reader in readers:
                reader.join()
        return texts.get("out", ""), texts.get("err", "")

    def send_signal(self, number: int) -> None:
        """See :meth:`subprocess.Popen.send_signal`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """See :meth:`subprocess.Popen.kill`."""
        self._process.kill()


def completed_python(
    code: str, *arguments: object, timeout: float = 300.0, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as :func:`subprocess.run` does with captured text."""
    process = ForkedPython(code, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)
    out, err = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess([code, *map(str, arguments)], process.returncode, out, err)


class _Streams:
    """The standard files of a new process, on their way to it."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(map(DupFd, self._numbers))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._numbers = tuple(duplicate.detach() for duplicate in state)

    def take_their_places(self) -> None:
        for place, number in enumerate(self._numbers):
            os.dup2(number, place)
            os.close(number)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)


def _writer() -> tuple[IO[str], int]:
    """What this process writes, and what the program reads."""
    reading, writing = os.pipe()
    return os.fdopen(writing, "w", encoding="utf-8"), reading


def _reader(wanted: int | None, standard: int) -> tuple[IO[str] | None, int]:
    """What this process reads, and what the program writes."""
    if wanted == subprocess.PIPE:
        reading, writing = os.pipe()
        return os.fdopen(reading, encoding="utf-8"), writing
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, os.dup(standard)


def _run(code: str, arguments: list[str], cwd: str, env: dict[str, str], *, streams: _Streams) -> None:
    """Be an interpreter of its own: its streams, folder, environment, main module and end."""
    streams.take_their_places()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    status = _status_of(code, main)
    threading._shutdown()  # type: ignore[attr-defined]
    with suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def _status_of(code: str, main: ModuleType) -> int:
    try:
        exec(compile(code, "<string>", "exec"), vars(main))
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
        return 1
    return 0
