"""Missing extras: said when they are needed, with the command that installs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gfb_brevitas.errors import MissingExtraError
from gfb_brevitas.extras import install_command
from gfb_integrations._optional import require
from gfb_integrations.qonnx import export_qonnx, verify

ROOT = Path(__file__).resolve().parents[2]

QONNX_MODULES = ["onnx", "onnxruntime", "onnxoptimizer", "qonnx"]

WITHOUT = f"""
import sys
sys.path[:0] = {[str(ROOT), str(ROOT / "integrations")]!r}
for module in {QONNX_MODULES!r}:
    sys.modules[module] = None
import gfb_integrations.qonnx
print("imported")
"""


@pytest.mark.parametrize("module", QONNX_MODULES)
def test_a_missing_package_is_named_with_the_command(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what Python itself does to block an import
    model, x, path = torch.nn.Identity(), torch.zeros(1, 2), tmp_path / "model.onnx"
    command = f"Install it with: {re.escape(install_command('export'))}$"
    with pytest.raises(
        MissingExtraError, match=f"^Exporting to QONNX needs the package '{module}'.*{command}"
    ):
        export_qonnx(model, x, path)
    with pytest.raises(MissingExtraError, match=f"^Verifying a QONNX file needs .* '{module}'.*{command}"):
        verify(model, path, x)
    assert list(tmp_path.iterdir()) == []


def test_the_integration_can_be_imported_without_its_extra() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout == "imported\n", run.stderr


def test_a_package_that_is_there_is_accepted() -> None:
    require("json", extra="export", purpose="Reading")
    with pytest.raises(MissingExtraError, match=r"Reading needs the package 'no_such_package'") as raised:
        require("json", "no_such_package", extra="export", purpose="Reading")
    assert isinstance(raised.value, ImportError)
