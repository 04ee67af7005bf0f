"""Brevitas compiles its quantizers when BREVITAS_JIT is set, which it reads once, on import."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import brevitas.nn as qnn
import torch
from gfb_brevitas.adapters import apply_allocation, make_searchable
from gfb_brevitas.errors import ConfigurationError

model = torch.nn.Sequential(qnn.QuantIdentity(), qnn.QuantConv2d(3, 4, 3)).eval()
expected = model(torch.ones(1, 3, 8, 8))
for attempt in (
    lambda: make_searchable(model, torch.ones(1, 3, 8, 8)),
    lambda: apply_allocation(model, {"0.act_quant": 4, "1.weight_quant": 4}),
):
    try:
        attempt()
    except ConfigurationError as error:
        print(error)
assert torch.equal(model(torch.ones(1, 3, 8, 8)), expected)
"""


def test_compiled_quantizers_are_refused_with_the_way_out(brevitas_jit: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env=brevitas_jit,
        capture_output=True,
        text=True,
        timeout=600,  # Brevitas may compile an extension first
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Start Python with BREVITAS_JIT=0.") == 2
