"""The first thing that a user reads is ours, not what other packages warn of by the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODEL = """if True:
    import brevitas.nn as qnn
    import torch
    from torch import nn
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(4, 2, bias=True)).eval()
    x = torch.randn(2, 4)
"""
USES = {
    "qonnx": "from gfb_integrations.qonnx import export_qonnx as export",
    "onnxruntime": "from gfb_integrations.onnxruntime import export_qcdq as export",
}


@pytest.mark.parametrize("integration", USES)
def test_an_export(integration: str, tmp_path) -> None:
    path = str(tmp_path / "model.onnx")
    assert said_by(f"{MODEL}    {USES[integration]}\n    export(model, x[:1], {path!r}, verify_on=x)\n") == ""


def test_a_search_without_matplotlib() -> None:
    program = """if True:
    import sys
    from dataclasses import replace
    from tests.core.search.small_problem import SEARCH, run
    sys.modules["matplotlib"] = None
    run(search=replace(SEARCH, method="cma-es"))
    assert "cma" in sys.modules
    """
    assert said_by(program) == ""


def test_a_float_model() -> None:
    quantize = "import gfb_brevitas as gfb\n    gfb.quantize_float_model(nn.Sequential(nn.Linear(4, 2)), x)\n"
    assert said_by(f"{MODEL}    {quantize}") == ""


def said_by(program: str) -> str:
    """What a program writes to the error stream, with Python's own choice of warnings."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
