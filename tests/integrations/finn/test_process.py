"""FINN's process in broken environments, and when the one that asked is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gfb_brevitas.errors import ConfigurationError, MissingExtraError
from gfb_integrations.finn import FinnError, FinnProcess, estimate, finn_python, install_finn, verify
from gfb_integrations.finn.environment import PYTHON_VARIABLE, default_prefix, python_of
from tests.forked_python import ForkedPython

LONG_REQUEST = """
import sys
import numpy as np
from gfb_integrations.finn import FinnProcess, verify
process = FinnProcess()
print(process._process.pid, process.folder, flush=True)
verify(sys.argv[1], np.zeros((20_000, 3, 8, 8)), process=process)
"""


def _program(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("lines", "printed"),
    [
        (["exit 3"], ""),
        (["echo hello"], "hello"),
        (["echo '{}'"], "{}"),
        (["printf '\\377\\376\\n'"], "\ufffd"),
        (["echo '[1' >&2"], "[1"),
    ],
)
def test_a_program_that_is_no_python_with_finn(
    lines: list[str], printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(_program(tmp_path / "python", *lines)))
    with pytest.raises(FinnError, match="ended at its start.*gfb finn install") as raised:
        FinnProcess()
    assert printed in str(raised.value)


def test_a_python_without_finn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    with pytest.raises(MissingExtraError, match="No module named 'finn'.*gfb finn install") as raised:
        FinnProcess()
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "python"
    file.write_text("text", encoding="utf-8")
    monkeypatch.setenv(PYTHON_VARIABLE, str(file))
    with pytest.raises(ConfigurationError, match="is not a program.*gfb finn install"):
        finn_python()
    file.chmod(0o755)
    with pytest.raises(FinnError, match="cannot be run.*gfb finn install"):
        FinnProcess()


def test_what_an_interpreter_prints_at_its_start_is_passed_over(finn: FinnProcess, tmp_path: Path) -> None:
    chatty = _program(tmp_path / "python", "echo hello", "echo '{\"a\": 1}'", f'exec {finn_python()} "$@"')
    with FinnProcess(chatty) as process:
        assert process.versions == finn.versions


@pytest.mark.parametrize("content", ["", "#!/bin/sh\nexit 1\n", f'#!/bin/sh\nexec {sys.executable} "$@"\n'])
def test_an_environment_that_lacks_packages_is_not_taken_for_finn(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    python = python_of(default_prefix())
    python.parent.mkdir(parents=True)
    python.write_text(content, encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(ConfigurationError, match="lacks .*Remove that folder"):
        install_finn()
    with pytest.raises(
        (FinnError, MissingExtraError), match="remove the folder .* and run: gfb finn install"
    ):
        FinnProcess()


def test_an_environment_with_all_packages_stays(finn: FinnProcess) -> None:
    del finn
    python = finn_python()
    assert install_finn(python.parents[1]) == python


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made in .*Name another"):
        install_finn(tmp_path / "file" / "finn")


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), True, "1"])
def test_a_time_limit_that_is_none(timeout_s: float, finn: FinnProcess, small_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="`timeout_s`"):
        estimate(small_model, board="Pynq-Z1", process=finn, timeout_s=timeout_s)
    with pytest.raises(ConfigurationError, match="`timeout_s`"):
        finn.call("estimate", timeout_s=timeout_s)


def test_a_process_that_is_none(small_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="must be a FinnProcess"):
        estimate(small_model, board="Pynq-Z1", process=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="must be a FinnProcess"):
        verify(small_model, np.zeros((1, 3, 8, 8)), process="x")  # type: ignore[arg-type]


def test_a_closed_process(finn: FinnProcess, small_model: Path) -> None:
    del finn
    process = FinnProcess()
    process.close()
    with pytest.raises(FinnError, match="closed"):
        estimate(small_model, board="Pynq-Z1", process=process)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_the_one_that_asked(
    sent: signal.Signals, finn: FinnProcess, small_model: Path, tmp_path: Path
) -> None:
    del finn
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = ForkedPython(
        LONG_REQUEST,
        small_model,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with program:
        assert program.stdout is not None
        pid, folder = program.stdout.readline().split()
        _wait_for(lambda: any(Path(folder).rglob("samples.npz")))  # the request has begun
        assert _runs(int(pid))
        program.send_signal(sent)
        program.wait()
    begin = time.monotonic()
    _wait_for(lambda: not _runs(int(pid)))
    assert time.monotonic() - begin < 10
    assert not list(temporary.glob("gfb-finn-*"))


def _runs(pid: int) -> bool:
    """Whether a process is there and not only waits for its exit status to be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
