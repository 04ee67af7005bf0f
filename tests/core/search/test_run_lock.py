from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search.run_lock import exclusive
from tests.forked_python import ForkedPython

# What later Pythons say of forks in processes with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

HOLD = """
import sys
from pathlib import Path
from gfb_brevitas.search.run_lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_of_this_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with exclusive(path):
        with pytest.raises(CheckpointError, match="in use by another run"), exclusive(path):
            pass
        with pytest.raises(CheckpointError, match="in use by another run"), exclusive(path):
            pass  # the refusal did not release it
    with exclusive(path):
        pass


def test_another_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with ForkedPython(HOLD, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(CheckpointError, match=f"process {holder.pid}"), exclusive(path):
                pass
        finally:
            holder.kill()
        holder.wait()
        with exclusive(path):
            pass


def test_the_file_of_a_dead_process_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    path.write_text("999999")
    with exclusive(path):
        assert path.read_text() != "999999"


FORKED = """
import os
import sys
from pathlib import Path
from gfb_brevitas.search.run_lock import exclusive
with exclusive(Path(sys.argv[1])):
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()
        os._exit(0)
    sys.stdin.read()
"""


def refused(path: Path) -> bool:
    """Whether another process is refused the lock."""
    if (child := os.fork()) == 0:
        try:
            with exclusive(path):
                os._exit(0)
        except CheckpointError as error:
            os._exit(1 if "in use by another run" in str(error) else 2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 1


def test_reading_the_file_does_not_give_the_lock_up(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with exclusive(path):
        shutil.copyfile(path, tmp_path / "backup")
        assert refused(path)
    assert not refused(path)


def test_a_forked_process_does_not_hold_the_lock_of_a_killed_one(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    program = [sys.executable, "-c", FORKED, str(path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "forked\n"
        assert refused(path)
        holder.kill()
        os.waitpid(holder.pid, 0)  # its child lives on, and waits for the end of the input
        assert not refused(path)


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
def test_a_folder_that_is_not_there_any_more(tmp_path: Path, what: str) -> None:
    path = tmp_path / "run" / "run.lock"
    with exclusive(path) as lock:
        lock.require_in_place()
        if what == "removed":
            shutil.rmtree(path.parent)
        else:
            path.parent.rename(tmp_path / "elsewhere")
        if what == "replaced":
            path.parent.mkdir()
            path.write_text("")
        with pytest.raises(CheckpointError, match="was removed, moved or replaced"):
            lock.require_in_place()
