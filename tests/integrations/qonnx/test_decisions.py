"""An export that keeps a decision by values is refused with its line; harmless ones are not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_integrations.onnxruntime import export_qcdq
from gfb_integrations.qonnx import export_qonnx

X = torch.linspace(-2, 2, 8).reshape(1, 8)


class Deciding(nn.Module):
    """Two layers, and a function that puts them together."""

    def __init__(self, decide: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q = qnn.QuantIdentity(return_quant_tensor=True)
        self.a, self.b = qnn.QuantLinear(8, 8, bias=True), qnn.QuantLinear(8, 8, bias=True)
        self.decide = decide

    def forward(self, x: Tensor) -> Any:
        return self.decide(self, self.q(x))


def branch(m: Any, x: Any) -> Any:
    return m.a(x) if x.value.abs().max() > 1 else m.b(x)


def item(m: Any, x: Any) -> Any:
    return m.a(x) * x.value.abs().max().item()


def number(m: Any, x: Any) -> Any:
    return m.a(x) + float(x.value.mean())


def truth(m: Any, x: Any) -> Any:
    return m.b(x) if bool((x.value < 0).any()) else m.a(x)


def loop(m: Any, x: Any) -> Any:
    y = m.a(x)
    for _ in range(int(x.value.abs().sum())):
        y = y + m.b(x)
    return y


def through_numpy(m: Any, x: Any) -> Any:
    return m.a(x) * torch.from_numpy(x.value.detach().numpy().max(keepdims=True))


def early_exit(m: Any, x: Any) -> Any:
    y = m.a(x)
    if y.softmax(-1).max() > 0.2:
        return y
    return m.b(x)


def of_shapes(m: Any, x: Any) -> Any:
    if x.value.shape[1] != 8:
        raise ValueError("eight")
    assert int(x.value.size(1)) == 8
    return m.a(x) / float(x.value.shape[-1])


def check_of_values(m: Any, x: Any) -> Any:
    if not torch.isfinite(x.value).all():
        raise ValueError("not finite")
    return m.a(x)


def by_tensors(m: Any, x: Any) -> Any:
    return torch.where(x.value.abs().max() > 1, m.a(x), m.b(x))


def all_close(m: Any, x: Any) -> Any:
    return m.a(x) if torch.allclose(x.value, x.value.abs(), atol=0.1) else m.b(x)


def equal(m: Any, x: Any) -> Any:
    return m.a(x) if torch.equal(x.value.sort().values, x.value) else m.b(x)


DECISIONS = (all_close, equal, branch, item, number, truth, loop, through_numpy, early_exit)
HARMLESS = (of_shapes, check_of_values, by_tensors)


def model(decide: Callable[..., Any]) -> nn.Module:
    searchable = gfb.make_searchable(Deciding(decide).eval(), X)
    searchable.calibrate([X])
    return searchable.freeze().eval()


@pytest.mark.parametrize("export", [export_qonnx, export_qcdq])
@pytest.mark.parametrize("decide", DECISIONS)
def test_a_decision_by_values_is_refused_with_its_line(
    decide: Callable[..., Any], export: Any, tmp_path: Path
) -> None:
    target = tmp_path / "model.onnx"
    with pytest.raises(gfb.ExportError, match=r"decides by values[\s\S]*torch.where") as caught:
        export(model(decide), X, target)
    lines, first = inspect.getsourcelines(decide)
    named = {f"line {first + k}: {line.strip()}" for k, line in enumerate(lines)}
    assert any(f'{__file__}", {line}' in str(caught.value) for line in named)
    assert not target.exists()


@pytest.mark.parametrize("export", [export_qonnx, export_qcdq])
@pytest.mark.parametrize("decide", HARMLESS)
def test_what_holds_for_all_values_is_exported(
    decide: Callable[..., Any], export: Any, tmp_path: Path
) -> None:
    report = export(model(decide), X, tmp_path / "model.onnx", verify_on=X)
    assert report.verification.max_abs_diff < 1e-5
