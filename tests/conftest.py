"""What holds for every test: one thread, fixed seeds, no display, CUDA tests only where CUDA is."""

from __future__ import annotations

import os
import signal

# Read once by the libraries when they are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

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
    "tests/integrations/finn/test_check.py",
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


# A shell that starts the tests in the background has them, and their children, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
