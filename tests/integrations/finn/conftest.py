from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gfb_brevitas.errors import MissingExtraError
from gfb_integrations.finn import FinnProcess, finn_python


@pytest.fixture(scope="session")
def finn() -> Iterator[FinnProcess]:
    """One process with FINN for all tests of a session."""
    try:
        finn_python()
    except MissingExtraError:
        pytest.skip("FINN is not installed; make test installs it")
    with FinnProcess() as process:
        yield process


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    """A small exported model."""
    from gfb_integrations.qonnx import export_qonnx
    from tests.integrations.finn.patterns import BUILDS, trained

    model, x = trained(BUILDS["plain"])
    path = tmp_path / "model.onnx"
    export_qonnx(model, x[:1], path)
    return path
