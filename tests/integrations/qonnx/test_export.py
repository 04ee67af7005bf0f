"""Exported files: what they compute, what they hold, and what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas.inject.enum import ScalingImplType
from brevitas.quant.scaled_int import Int8ActPerTensorFloat
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_integrations.qonnx import ExportReport, export_qonnx
from gfb_integrations.qonnx._execution import readable_by_onnxruntime
from gfb_integrations.qonnx._layer_outputs import tensors_in
from tests.integrations.qonnx.networks import (
    EXPORTABLE,
    IMAGE,
    Case,
    DpuActivations,
    DynamicActivations,
    MixedWidths,
    Recurrent,
    Residual,
    chain,
    full_of_ties,
    quantized,
)

ROOT = Path(__file__).resolve().parents[3]


def run_file(path: Path, *inputs: Tensor) -> list[np.ndarray[Any, Any]]:
    """What QONNX computes from the file, without any of this package's comparison."""
    graph = ModelWrapper(str(path))
    feeds = {info.name: x.numpy() for info, x in zip(graph.graph.input, inputs, strict=True)}
    with readable_by_onnxruntime():
        return list(execute_onnx(graph, feeds).values())


def nodes(path: Path, *operators: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type in operators]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def bit_widths(path: Path) -> list[int]:
    graph = ModelWrapper(str(path))
    return sorted(int(graph.get_initializer(node.input[3])) for node in graph.get_nodes_by_op_type("Quant"))


# --- what the file computes --------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTABLE)
def test_the_file_computes_what_the_model_computes(name: str, tmp_path: Path) -> None:
    case = EXPORTABLE[name]
    model, samples = case.trained(), case.samples(12)
    path = tmp_path / "model.onnx"

    report = export_qonnx(model, case.samples(1), path, verify_on=samples)

    verification = report.verification
    assert verification is not None
    assert verification.samples == 12
    assert verification.layers_not_compared == ()
    assert verification.layers_compared > 0
    first = tuple(x[:1] for x in samples)
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in tensors_in(model.eval()(*first))]
    for computed, wanted in zip(run_file(path, *first), expected, strict=True):
        np.testing.assert_allclose(computed, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    if name != "16 bits":
        assert verification.max_abs_diff <= 1e-5 * max(np.abs(wanted).max() for wanted in expected)


def test_unsigned_1_bit_activations_are_0_and_scale(tmp_path: Path) -> None:
    case = chain(quantized, lambda: qnn.QuantReLU(bit_width=1))
    model = case.trained()
    export_qonnx(model, case.samples(1), tmp_path / "model.onnx", verify_on=case.samples(9))

    *_, activation = nodes(tmp_path / "model.onnx", "Quant", "BipolarQuant")
    assert activation.op_type == "Quant"
    assert {"signed": 0, "narrow": 0}.items() <= attributes(activation).items()
    assert bit_widths(tmp_path / "model.onnx") == [1, 4]
    (computed,) = run_file(tmp_path / "model.onnx", *case.samples(1))
    assert sorted(np.unique(computed)) == pytest.approx([0.0, float(model[1].act_quant.scale().detach())])


@pytest.mark.parametrize("name, bipolar", [("bipolar weights", 1), ("bipolar activations", 2)])
def test_bipolar_quantizers_are_written_as_such(name: str, bipolar: int, tmp_path: Path) -> None:
    case = EXPORTABLE[name]
    export_qonnx(case.trained(), case.samples(1), tmp_path / "model.onnx")
    assert len(nodes(tmp_path / "model.onnx", "BipolarQuant")) == bipolar


# --- what the file holds -----------------------------------------------------------------------


def test_bit_widths_shapes_and_types_are_in_the_file(tmp_path: Path) -> None:
    case = EXPORTABLE["mixed widths"]
    path = tmp_path / "deeper" / "model.onnx"
    report = export_qonnx(case.trained(), case.samples(1), path, opset=13)

    assert bit_widths(path) == [2, 2, 3, 4, 5, 6, 8, 8]
    assert report.inputs[0].shape == (1, 3, 8, 8)
    assert report.outputs[0].shape == (1, 10)
    assert report.operators["Conv"] == 3
    assert report.operators["Quant"] == 8
    assert report.size_bytes == path.stat().st_size
    proto = onnx.load(path)
    assert proto.ir_version == report.ir_version <= 13
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == report.opset == 13
    graph = ModelWrapper(proto)
    assert graph.check_all_tensor_shapes_specified()
    types = {graph.get_tensor_datatype(node.output[0]).name for node in graph.get_nodes_by_op_type("Quant")}
    assert types == {f"SCALEDINT<{bits}>" for bits in (2, 3, 4, 5, 6, 8)}


def test_the_graph_has_the_models_outputs_and_no_others(tmp_path: Path) -> None:
    case = EXPORTABLE["two inputs"]
    report = export_qonnx(case.trained(), case.samples(1), tmp_path / "model.onnx")
    assert [tensor.shape for tensor in report.inputs] == [(1, 6), (1, 6)]
    assert [tensor.shape for tensor in report.outputs] == [(1, 3), (1, 2), (1, 6)]
    assert "Identity" not in report.operators


def test_the_report_is_json(tmp_path: Path) -> None:
    case = EXPORTABLE["linear"]
    report = export_qonnx(case.trained(), case.samples(1), tmp_path / "model.onnx", verify_on=case.samples(3))
    document = json.loads(json.dumps(report.to_dict()))
    assert document["inputs"] == [{"name": "global_in", "shape": [1, 6], "datatype": "FLOAT32"}]
    assert document["verification"]["samples"] == 3
    assert document["versions"]["brevitas"].startswith("0.13")
    assert isinstance(report, ExportReport)


def test_an_export_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = EXPORTABLE["attention"]
    export_qonnx(case.trained(), case.samples(1), tmp_path / "model.onnx", verify_on=case.samples(4))
    assert capfd.readouterr() == ("", "")


# --- what an export leaves behind --------------------------------------------------------------


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        path: (
            module.training,
            getattr(module, "export_mode", None),
            getattr(module, "export_handler", None),
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            sorted(key for key in vars(module) if key.endswith("_backup")),
            [parameter.requires_grad for parameter in module.parameters()],
        )
        for path, module in model.named_modules()
    }


@pytest.mark.parametrize("name", ["mixed widths", "bipolar weights", "pool to 4 bits", "bias"])
def test_the_model_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    case = EXPORTABLE[name]
    model = case.trained()
    for parameter in list(model.parameters())[:1]:
        parameter.requires_grad_(False)
    next(iter(model.children())).eval()
    values, state = copy.deepcopy(model.state_dict()), state_of(model)

    export_qonnx(model, case.samples(1), tmp_path / "model.onnx", verify_on=case.samples(5))

    assert state_of(model) == state
    after = model.state_dict()
    assert after.keys() == values.keys()
    assert all(torch.equal(after[key], values[key]) for key in values)


def test_a_refused_export_leaves_the_model_and_the_folder_as_they_were(tmp_path: Path) -> None:
    case = chain(quantized, lambda: qnn.QuantIdentity(act_quant=DpuActivations, bit_width=3))
    model = case.trained()
    state = state_of(model)
    with pytest.raises(ExportError):
        export_qonnx(model, case.samples(1), tmp_path / "model.onnx")
    assert state_of(model) == state
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_its_verification_does_not_replace_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    samples = torch.randn(16, *IMAGE)
    with pytest.raises(ExportError, match=r"'.*model\.onnx' may differ .* at most atol = 0;"):
        export_qonnx(full_of_ties(), samples[:1], path, verify_on=samples, atol=0.0)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_path_is_an_export_error(tmp_path: Path) -> None:
    case = EXPORTABLE["linear"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_qonnx(case.trained(), case.samples(1), tmp_path / "file" / "model.onnx")


def test_weights_are_exported_as_they_are_not_as_brevitas_cached_them(tmp_path: Path) -> None:
    model = nn.Sequential(quantized(), qnn.QuantLinear(6, 3, weight_bit_width=4, bias=False)).eval()
    x = torch.randn(1, 6)
    model[1].weight_quant.cache_inference_quant_weight = True
    with torch.no_grad():
        before = model(x).numpy()
        model[1].weight.mul_(2.0)
    export_qonnx(model, x, tmp_path / "model.onnx", verify_on=x)
    np.testing.assert_allclose(run_file(tmp_path / "model.onnx", x)[0], 2 * before, rtol=1e-5)


@pytest.mark.cuda
def test_a_model_on_cuda_is_exported_and_stays_there(tmp_path: Path) -> None:
    case = EXPORTABLE["mixed widths"]
    model = case.trained().cuda()
    samples = tuple(x.cuda() for x in case.samples(8))
    report = export_qonnx(model, tuple(x[:1] for x in samples), tmp_path / "model.onnx", verify_on=samples)
    assert report.verification is not None and report.verification.samples == 8
    assert all(parameter.is_cuda for parameter in model.parameters())


# --- what is refused ---------------------------------------------------------------------------


class Uncopyable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = quantized()

    def forward(self, x: Tensor) -> Tensor:
        return self.quant(x)

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a lock cannot be copied")


class DataDependent(nn.Module):
    """Its output's shape depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = quantized()

    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(self.quant(x).value).float()


class Unsupported(nn.Module):
    """An operation that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = quantized()

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.erfcx(self.quant(x).value)


REFUSED = {
    "signed integers of 1 bit": (
        chain(lambda: quantized(1)),
        r"'0\.act_quant' .* 1-bit values are neither -scale and scale \(bipolar",
    ),
    "signed integer weights of 1 bit": (
        chain(quantized, lambda: qnn.QuantConv2d(3, 4, 3, weight_bit_width=1, weight_narrow_range=False)),
        r"'1\.weight_quant' .* 1-bit",
    ),
    "rounding of the DPU": (
        chain(lambda: qnn.QuantIdentity(act_quant=DpuActivations, bit_width=3)),
        r"'0\.act_quant' .* rounding mode like 'DPU'",
    ),
    "dynamic scale": (
        chain(lambda: qnn.QuantIdentity(act_quant=DynamicActivations)),
        r"'0\.act_quant' is a DynamicActQuantProxyFromInjector, .* static scale",
    ),
    "LSTM": (Case(lambda: Recurrent(qnn.QuantLSTM), ((4, 6),)), r"'layer\.layers\.0\.0' \(_QuantLSTMLayer\)"),
    "RNN": (Case(lambda: Recurrent(qnn.QuantRNN), ((4, 6),)), r"recurrent layer 'layer\.layers\.0\.0'"),
    "nothing quantized": (chain(lambda: nn.Conv2d(3, 4, 3)), "no active Brevitas quantizer"),
    "double precision": (
        Case(lambda: nn.Sequential(quantized(), nn.Flatten(), nn.Linear(192, 2)).double(), ((3, 8, 8),)),
        r"float32, and the parameter '0\..*' is torch\.float64.* model\.float\(\)",
    ),
    "not to be copied": (Case(Uncopyable, ((6,),)), "a lock cannot be copied"),
    "shapes from data": (Case(DataDependent, ((6,),)), "NonZero .* depends on the data"),
    "no such operation": (
        Case(Unsupported, ((6,),)),
        r"cannot be exported to QONNX: .*special_erfcx.* replace it, or try another `opset`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    case, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        export_qonnx(case.build(), case.samples(1), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_quantizers_compiled_by_torchscript_are_refused(tmp_path: Path, brevitas_jit: dict[str, str]) -> None:
    program = (
        "import brevitas.nn as qnn, torch\n"
        "from gfb_integrations.qonnx import export_qonnx\n"
        "export_qonnx(qnn.QuantIdentity().eval(), torch.zeros(1, 2), 'model.onnx')\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env=brevitas_jit,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "ExportError: Brevitas can neither trace" in run.stderr
    assert "BREVITAS_JIT=1" in run.stderr.splitlines()[-1]


def test_branches_with_two_scales_are_told_to_share_a_quantizer(tmp_path: Path) -> None:
    model = Case(Residual, ((3, 8, 8),)).trained().eval()
    model.other = qnn.QuantIdentity(
        act_quant=type(
            "Wider",
            (Int8ActPerTensorFloat,),
            {"scaling_impl_type": ScalingImplType.CONST, "scaling_init": 9.0},
        ),
        return_quant_tensor=True,
    ).eval()
    with pytest.raises(ExportError, match=r"Scaling factors are different.* share one quantizer"):
        export_qonnx(model, torch.randn(1, 3, 8, 8), tmp_path / "model.onnx")


def test_an_example_that_does_not_fit_is_told_apart_from_an_export_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not run on the example input"):
        export_qonnx(MixedWidths(), torch.randn(1, 5, 8, 8), tmp_path / "model.onnx")


@pytest.mark.parametrize("opset", [10, 21, 17.5])
def test_operator_sets_outside_the_range_are_refused(opset: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"`opset` must be from 11 to 20; got {opset}"):
        export_qonnx(MixedWidths(), torch.randn(1, 3, 8, 8), tmp_path / "model.onnx", opset=opset)


def test_examples_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    example: Any
    for example in (np.zeros((1, 3, 8, 8)), 3, None, [], [3]):
        with pytest.raises(ConfigurationError, match="`example_input` must be a tensor"):
            export_qonnx(MixedWidths(), example, tmp_path / "model.onnx")


def test_an_export_after_a_failed_one_works(tmp_path: Path) -> None:
    """Brevitas keeps global state during an export."""
    failing = Case(Unsupported, ((6,),))
    with pytest.raises(ExportError):
        export_qonnx(failing.trained(), failing.samples(1), tmp_path / "model.onnx")
    case = EXPORTABLE["linear"]
    export_qonnx(case.trained(), case.samples(1), tmp_path / "model.onnx", verify_on=case.samples(2))
