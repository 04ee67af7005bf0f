"""QCDQ files of small models: ONNX Runtime computes what PyTorch computes."""

from __future__ import annotations

from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.errors import ConfigurationError, EmptyDataError, ExportError
from gfb_integrations.onnxruntime import export_qcdq, qcdq_limits, run, verify


def network(bits: int = 4, **first: object) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, bias=False, weight_bit_width=bits, **first),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(bit_width=bits, return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(4 * 9, 5, bias=True, weight_bit_width=bits),
    )
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 2, 8, 8))
    return model.eval()


def samples(count: int = 20) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_width_from_2_to_8_bits_computes_the_same(bits: int, tmp_path: Path) -> None:
    model = network(bits)
    exported = export_qcdq(model, samples(1), tmp_path / "model.onnx", verify_on=samples())
    found = exported.verification
    assert found is not None and found.samples == 20
    assert found.output_step is not None and found.as_written.max_diff_steps == 0
    assert found.max_abs_diff < 1e-5 and found.as_written.argmax_agreement == 1
    assert exported.operators["DequantizeLinear"] >= 4
    assert exported.operators["Clip"] >= 1


def test_the_file_runs_with_any_batch_size_and_gives_the_models_outputs(tmp_path: Path) -> None:
    model, x = network(), samples(7)
    export_qcdq(model, x[:1], tmp_path / "model.onnx")
    (found,) = run(tmp_path / "model.onnx", x)
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)


def test_a_searched_allocation_is_carried(tmp_path: Path) -> None:
    searchable = gfb.make_searchable(network(), samples(1), bits=(2, 8))
    searchable.calibrate([samples()])
    bits = {name: 2 + i for i, name in enumerate(searchable.allocation)}
    frozen = searchable.freeze(bits)
    exported = export_qcdq(frozen, samples(1), tmp_path / "model.onnx", verify_on=samples())
    assert exported.verification is not None and exported.verification.as_written.max_diff_steps == 0


def test_scales_per_channel_are_carried(tmp_path: Path) -> None:
    model = network(weight_scaling_per_output_channel=True)
    exported = export_qcdq(model, samples(1), tmp_path / "model.onnx", verify_on=samples())
    assert exported.verification is not None and exported.verification.as_written.max_diff_steps == 0


def test_another_model_differs_by_steps(tmp_path: Path) -> None:
    model = network()
    export_qcdq(model, samples(1), tmp_path / "model.onnx")
    with torch.no_grad():
        model[6].bias += 1.0
    found = verify(model, tmp_path / "model.onnx", samples())
    assert found.as_written.max_diff_steps is not None and found.as_written.max_diff_steps > 5
    assert found.max_abs_diff == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "layer, reason",
    [
        (qnn.QuantIdentity(bit_width=10), "at most 8 bits"),
        (qnn.QuantLinear(2, 2, bias=False, weight_bit_width=1), "widths begin at 2 bits"),
        (qnn.QuantIdentity(bit_width=4, float_to_int_impl_type="FLOOR"), "rounds as 'FLOOR'"),
    ],
    ids=["wide", "one bit", "rounding"],
)
def test_what_cannot_be_carried_is_named_and_nothing_is_written(
    layer: nn.Module, reason: str, tmp_path: Path
) -> None:
    model = nn.Sequential(qnn.QuantIdentity(bit_width=8), layer)
    (limit,) = qcdq_limits(model)
    assert limit.name.startswith("1.") and reason in limit.reason
    with pytest.raises(ExportError, match=f"1\\..*{reason}"):
        export_qcdq(model, torch.randn(1, 2), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_qcdq(model, samples(1), tmp_path / "model.onnx")
    assert model.training and all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_bad_arguments(tmp_path: Path) -> None:
    model = network()
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigurationError, match="13 to 20"):
        export_qcdq(model, samples(1), path, opset=9)
    export_qcdq(model, samples(1), path)
    with pytest.raises(EmptyDataError):
        verify(model, path, samples()[:0])
    with pytest.raises(ConfigurationError, match="1 inputs; 2 were given"):
        run(path, (samples(1), samples(1)))
    with pytest.raises(ExportError, match="cannot be read"):
        run(tmp_path / "none.onnx", samples(1))
    path.write_bytes(b"nothing")
    with pytest.raises(ExportError, match="cannot load"):
        run(path, samples(1))


def test_the_file_is_plain_onnx(tmp_path: Path) -> None:
    export_qcdq(network(), samples(1), tmp_path / "model.onnx", opset=13)
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto)
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}


class OutputsAsQuantTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.last = qnn.QuantLinear(4, 3, bias=True, weight_bit_width=4)
        self.out = qnn.QuantIdentity(bit_width=6, return_quant_tensor=True)

    def forward(self, x: Tensor) -> object:
        return self.out(self.last(self.first(x)))


def test_a_model_that_returns_quant_tensors_has_their_values_as_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = OutputsAsQuantTensor(), torch.randn(12, 4)
    model(x)
    model.eval()
    exported = export_qcdq(model, x[:1], tmp_path / "model.onnx", verify_on=x)
    assert exported.verification is not None and exported.verification.as_written.max_diff_steps == 0
    assert len(run(tmp_path / "model.onnx", x)) == 1


def test_a_quantized_bias_is_carried(tmp_path: Path) -> None:
    from brevitas.quant import Int32Bias

    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantLinear(4, 3, bias=True, weight_bit_width=4, bias_quant=Int32Bias),
    )
    x = torch.randn(12, 4)
    model(x)
    model.eval()
    exported = export_qcdq(model, x[:1], tmp_path / "model.onnx", verify_on=x)
    assert exported.verification is not None and exported.verification.max_abs_diff < 1e-5
