"""What a verification does with models, samples and outputs that are not as they should be."""

from __future__ import annotations

import json
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError
from gfb_integrations.finn import FinnBuildError, FinnProcess, verify
from gfb_integrations.qonnx import export_qonnx
from tests.integrations.finn.patterns import BUILDS, conv, entry, head, relu, trained


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(entry(), conv(), relu())
        self.one, self.other = head(144), head(144)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.one(x), self.other(x)


def _expected(x: Tensor) -> np.ndarray:
    model, _ = trained(BUILDS["plain"])
    with torch.no_grad():
        found: np.ndarray = model(x).numpy()
    return found


def test_every_stage_is_exact_as_plain_data(finn: FinnProcess, small_model: Path) -> None:
    x = torch.rand(3, 3, 8, 8)
    found = verify(small_model, x, outputs=_expected(x), process=finn)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["exact"] and [stage["exact"] for stage in data["stages"]] == [True] * 5
    assert found.first_difference is None


def test_less_than_a_step_is_a_difference_too(finn: FinnProcess, small_model: Path) -> None:
    x = torch.rand(3, 3, 8, 8)
    outputs = _expected(x)
    step = verify(small_model, x, outputs=outputs, process=finn).output_step
    assert step is not None
    found = verify(small_model, x, outputs=outputs + np.float32(0.3 * step), process=finn)
    assert not found.exact
    assert found.first_difference is not None
    assert (found.first_difference.stage, found.first_difference.max_diff_steps) == ("qonnx", 0)
    assert found.first_difference.node is None


def test_outputs_that_are_no_numbers_are_not_exact(finn: FinnProcess, small_model: Path) -> None:
    x = torch.rand(2, 3, 8, 8)
    found = verify(small_model, x, outputs=np.full((2, 5), np.nan, dtype=np.float32), process=finn)
    assert not found.exact


def test_samples_that_are_no_numbers_are_refused(finn: FinnProcess, small_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="must be finite"):
        verify(small_model, torch.full((2, 3, 8, 8), torch.nan), process=finn)


def test_one_output_is_compared(finn: FinnProcess, tmp_path: Path) -> None:
    model, x = TwoHeads(), torch.rand(4, 3, 8, 8)
    model(x)
    model.eval()
    path = tmp_path / "model.onnx"
    export_qonnx(model, x[:1], path)
    with pytest.raises(ConfigurationError, match="one tensor to be compared; it put out a tuple"):
        verify(path, x, model=model, process=finn)
    with pytest.raises(FinnBuildError, match="1 inputs and 2 outputs"):
        verify(path, x, process=finn)


def test_values_between_two_integers_make_no_difference(finn: FinnProcess, tmp_path: Path) -> None:
    """PyTorch rounds half to even, thresholds round it up: neither is wrong."""
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(bit_width=4, scaling_impl_type="const", scaling_init=8.0, return_quant_tensor=True),
        qnn.QuantLinear(12, 5, bias=True, weight_bit_width=4),
    ).eval()
    halves = torch.randint(-6, 6, (6, 12)) + 0.5
    halves[:, :2] = torch.tensor([-8.0, 7.0])  # whole numbers at both ends
    export_qonnx(model, halves[:1], tmp_path / "model.onnx")
    found = verify(tmp_path / "model.onnx", halves, model=model, process=finn)
    last = found.stages[-1]
    assert last.max_diff_steps and last.rounding_flips > 0
    assert found.exact and found.first_difference is None
    # A model whose weights are others is another one, whatever the samples.
    with torch.no_grad():
        model[1].weight.mul_(-1.0)
    assert not verify(tmp_path / "model.onnx", halves, model=model, process=finn).exact
