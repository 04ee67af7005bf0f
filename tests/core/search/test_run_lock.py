from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search.run_lock import exclusive

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
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
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
