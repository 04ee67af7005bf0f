"""What holds for every test: one thread, fixed seeds, no display, CUDA tests only where CUDA is."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

# Read once by the libraries when they are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

# Temporary folders lie in memory where there is room: a run waits for the disk after every step otherwise.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Derandomized, so that a run that passes passes again; no deadline, since CI machines vary in speed.
hypothesis.settings.register_profile(
    "gfb",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("gfb")


# The files that take longest begin first: one that began last would be waited for by idle processes.
LONGEST = (
    "tests/examples/test_examples.py",
    "tests/integrations/mlflow/test_faults.py",
    "tests/test_docs.py",
    "tests/core/faults/test_faults.py",
    "tests/core/search/test_resume.py",
    "tests/integrations/test_configured_runs.py",
    "tests/integrations/report/test_page.py",
    "tests/integrations/finn/test_checking.py",
    "tests/integrations/finn/test_estimate.py",
    "tests/integrations/finn/test_restriction.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files in front; skip the tests marked ``cuda`` on machines without a CUDA device."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def fixed_torch_seed() -> None:
    """Give every test the same initial weights, whatever ran before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture
def brevitas_jit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Brevitas compiles its quantizers, once for all test processes.

    Not in the user's cache: a build that is killed leaves a lock there, for which every later one waits.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = os.pathsep.join(filter(None, sys.path))
    return {
        **os.environ,
        "BREVITAS_JIT": "1",
        "TORCH_EXTENSIONS_DIR": str(shared / "jit"),
        "PYTHONPATH": path,
    }


# A shell that starts the tests in the background has them, and their children, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
