"""Verification: wrong files are found out and the layer is named, rounding is told apart from errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, EmptyDataError, ExportError
from gfb_integrations.qonnx import export_qonnx, verify
from gfb_integrations.qonnx._graph import LAYERS_KEY, layers_of
from tests.integrations.qonnx.networks import EXPORTABLE, IMAGE, full_of_ties, quantized

Corruption = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def mixed() -> nn.Module:
    """A small network of mixed widths, trained for a few batches."""
    torch.manual_seed(0)
    return EXPORTABLE["mixed widths"].trained()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(40, *IMAGE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def good(mixed: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "good.onnx"
    export_qonnx(mixed, images[:1], path)
    return path


# --- wrong files -------------------------------------------------------------------------------


def node_of(proto: onnx.ModelProto, layer: str) -> onnx.NodeProto:
    """The node that computes the output of ``layer``."""
    (node,) = [n for n in proto.graph.node if any(output.layer == layer for _, output in layers_of(n))]
    return node


def changed_input(layer: str, position: int, change: Callable[[Any], Any]) -> Corruption:
    """Change an initializer that the node of a layer reads."""

    def corrupt(proto: onnx.ModelProto) -> None:
        name = node_of(proto, layer).input[position]
        (tensor,) = [t for t in proto.graph.initializer if t.name == name]
        values = change(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))

    return corrupt


def changed_attribute(layer: str, name: str, value: Any) -> Corruption:
    def corrupt(proto: onnx.ModelProto) -> None:
        node = node_of(proto, layer)
        (old,) = [attribute for attribute in node.attribute if attribute.name == name]
        old.CopyFrom(onnx.helper.make_attribute(name, value))

    return corrupt


def one_weight_flipped(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    position = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[position] *= -1
    return values


def negated_between_layers(proto: onnx.ModelProto) -> None:
    """Something between two layers that belongs to neither: the pooled values are negated."""
    flatten = next(node for node in proto.graph.node if node.op_type == "Flatten")
    index = list(proto.graph.node).index(flatten)
    proto.graph.node.insert(
        index, onnx.helper.make_node("Neg", [flatten.input[0]], ["negated"], name="Neg_0")
    )
    (info,) = [v for v in proto.graph.value_info if v.name == flatten.input[0]]
    proto.graph.value_info.add().CopyFrom(info)
    proto.graph.value_info[-1].name = "negated"
    flatten.input[0] = "negated"


CORRUPTIONS: dict[str, tuple[Corruption, str]] = {
    "a weight": (changed_input("conv2.weight_quant", 0, one_weight_flipped), "conv2.weight_quant"),
    "a weight of a linear layer": (
        changed_input("fc.weight_quant", 0, one_weight_flipped),
        "fc.weight_quant",
    ),
    "a weight scale": (changed_input("fc.weight_quant", 1, lambda s: s * 1.01), "fc.weight_quant"),
    "one channel's scale": (
        changed_input("conv1.weight_quant", 1, lambda s: s * np.linspace(1, 1.01, s.size).reshape(s.shape)),
        "conv1.weight_quant",
    ),
    "a weight width": (
        changed_input("depthwise.0.weight_quant", 3, lambda b: b - 1),
        "depthwise.0.weight_quant",
    ),
    "an activation scale": (changed_input("relu1.act_quant", 1, lambda s: s * 1.01), "relu1.act_quant"),
    "an activation width": (changed_input("relu2.act_quant", 3, lambda b: b - 1), "relu2.act_quant"),
    "an activation sign": (changed_attribute("relu1.act_quant", "signed", 1), "relu1.act_quant"),
    "a rounding mode": (
        changed_attribute("depthwise.3.act_quant", "rounding_mode", "CEIL"),
        "depthwise.3.act_quant",
    ),
    "an input scale": (changed_input("inp.act_quant", 1, lambda s: s * 1.001), "inp.act_quant"),
    "a bias": (changed_input("fc", 2, lambda b: b + 1e-3), "fc"),
    "a mean": (changed_input("bn2", 3, lambda m: m + 1e-3), "bn2"),
    "a padding": (changed_attribute("conv1", "pads", [0, 0, 2, 2]), "conv1"),
    "between layers": (negated_between_layers, "fc"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_corrupted_layer_is_named(
    name: str, mixed: nn.Module, images: Tensor, good: Path, tmp_path: Path
) -> None:
    corrupt, layer = CORRUPTIONS[name]
    proto = onnx.load(good)
    corrupt(proto)
    onnx.save(proto, tmp_path / "bad.onnx")

    with pytest.raises(ExportError, match="does not compute what the model computes") as raised:
        verify(mixed, tmp_path / "bad.onnx", images[:4])

    message = str(raised.value)
    assert f"part first at the layer '{layer}' (node " in message
    assert "Given equal inputs" not in message, "nothing else was corrupted"


def test_all_corrupted_layers_are_named_in_the_order_of_the_model(
    mixed: nn.Module, images: Tensor, good: Path, tmp_path: Path
) -> None:
    proto = onnx.load(good)
    changed_input("fc", 2, lambda b: b + 1)(proto)
    changed_input("conv1.weight_quant", 0, one_weight_flipped)(proto)
    changed_input("relu2.act_quant", 1, lambda s: s * 2)(proto)
    onnx.save(proto, tmp_path / "bad.onnx")
    message = r"part first at the layer 'conv1\.weight_quant' .* these differ too: relu2\.act_quant, fc\."
    with pytest.raises(ExportError, match=message):
        verify(mixed, tmp_path / "bad.onnx", images[:4])


@pytest.mark.parametrize(
    "name, layer",
    [
        ("residual", "joint.act_quant"),
        ("concatenation", "quant.act_quant"),
        ("attention", "attention.v_quant.act_quant"),
    ],
)
def test_shared_quantizers_and_functional_layers_are_named(name: str, layer: str, tmp_path: Path) -> None:
    case = EXPORTABLE[name]
    model = case.trained()
    export_qonnx(model, case.samples(1), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    node = [n for n in proto.graph.node if any(o.layer == layer for _, o in layers_of(n))][-1]
    (scale,) = [t for t in proto.graph.initializer if t.name == node.input[1]]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.5), scale.name))
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=f"part first at the layer '{layer}'"):
        verify(model, tmp_path / "model.onnx", case.samples(3))


def test_an_operation_outside_all_layers_is_not_taken_for_rounding(tmp_path: Path) -> None:
    """The sum of the two branches belongs to no layer, and a quantizer comes right after it."""
    case = EXPORTABLE["residual"]
    model = case.trained()
    export_qonnx(model, case.samples(1), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    (addition,) = [node for node in proto.graph.node if node.op_type == "Add"]
    addition.op_type = "Sub"
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"part first at the layer 'relu\.act_quant'"):
        verify(model, tmp_path / "model.onnx", case.samples(3))


def test_a_model_that_was_changed_after_the_export_is_found_out(
    mixed: nn.Module, images: Tensor, good: Path
) -> None:
    torch.manual_seed(5)
    other = EXPORTABLE["mixed widths"].trained()
    with pytest.raises(ExportError, match=r"part first at the layer 'inp\.act_quant'.* export it again"):
        verify(other, good, images[:2])


def test_values_that_are_not_numbers_are_differences(
    mixed: nn.Module, images: Tensor, good: Path, tmp_path: Path
) -> None:
    proto = onnx.load(good)
    changed_input("fc", 2, lambda b: b * np.nan)(proto)
    onnx.save(proto, tmp_path / "bad.onnx")
    with pytest.raises(ExportError, match="part first at the layer 'fc'"):
        verify(mixed, tmp_path / "bad.onnx", images[:2])


def test_a_file_without_layer_names_is_compared_by_its_outputs(
    mixed: nn.Module, images: Tensor, good: Path, tmp_path: Path
) -> None:
    proto = onnx.load(good)
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != LAYERS_KEY]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(proto, tmp_path / "foreign.onnx")
    report = verify(mixed, tmp_path / "foreign.onnx", images[:4])
    assert (report.layers_compared, report.samples) == (0, 4)

    name = proto.graph.node[-1].input[2]
    (bias,) = [t for t in proto.graph.initializer if t.name == name]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), name))
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(ExportError, match="part first at the model's output"):
        verify(mixed, tmp_path / "foreign.onnx", images[:4])


# --- rounding ----------------------------------------------------------------------------------


def test_rounding_flips_are_counted_and_are_no_error(tmp_path: Path) -> None:
    model, samples = full_of_ties(), torch.randn(64, *IMAGE)
    report = export_qonnx(model, samples[:1], tmp_path / "ties.onnx", verify_on=samples).verification
    assert report is not None
    assert report.flips_by_layer == {"2.act_quant": report.rounding_flips}
    assert 0 < report.samples_with_flips <= 64
    # The outputs differ by far more than float32 rounds: the flips reach them.
    assert report.max_abs_diff > 1e-3
    # And yet there are no more flips than values that lie on a tie.
    with torch.no_grad():
        halves = (model[1](model[0](samples)) / 0.06).double()
    on_a_tie = ((halves - halves.floor() - 0.5).abs() < 1e-3) & (halves > 0) & (halves < 255)
    assert report.rounding_flips < int(on_a_tie.sum())


def test_flips_of_a_shared_quantizer_are_added_up(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = full_of_ties()

        def forward(self, x: Tensor) -> Tensor:
            quantize, conv, relu, _ = self.layers
            return torch.cat([relu(conv(quantize(part))).value for part in (x, x.flip(1))], 1)

    once, samples = full_of_ties()[:3], torch.randn(8, *IMAGE)
    twice = Twice().eval()
    twice.layers[1].load_state_dict(once[1].state_dict())
    counts = []
    for model, batch in ((once, samples), (once, samples.flip(1)), (twice, samples)):
        report = export_qonnx(model, samples[:8], tmp_path / "m.onnx", verify_on=batch).verification
        assert report is not None
        counts.append(report.rounding_flips)
    assert counts[0] > 0 and counts[1] > 0
    assert counts[2] == counts[0] + counts[1]


def test_flips_do_not_hide_an_error(tmp_path: Path) -> None:
    model, samples = full_of_ties(), torch.randn(16, *IMAGE)
    export_qonnx(model, samples[:1], tmp_path / "ties.onnx")
    proto = onnx.load(tmp_path / "ties.onnx")
    changed_input("2.act_quant", 1, lambda s: s * 1.001)(proto)
    onnx.save(proto, tmp_path / "ties.onnx")
    with pytest.raises(ExportError, match=r"part first at the layer '2\.act_quant'"):
        verify(model, tmp_path / "ties.onnx", samples)

    export_qonnx(model, samples[:1], tmp_path / "ties.onnx")
    proto = onnx.load(tmp_path / "ties.onnx")
    changed_input("3.weight_quant", 0, one_weight_flipped)(proto)
    onnx.save(proto, tmp_path / "ties.onnx")
    with pytest.raises(ExportError, match=r"part first at the layer '3\.weight_quant'"):
        verify(model, tmp_path / "ties.onnx", samples)


def test_another_rounding_of_ties_is_an_error_not_a_flip(tmp_path: Path) -> None:
    """With scales that are powers of two all sums are exact: nothing but the rounding mode can differ."""
    case = EXPORTABLE["fixed point"]
    model, samples = case.trained(), case.samples(16)
    export_qonnx(model, case.samples(1), tmp_path / "model.onnx", verify_on=samples)
    proto = onnx.load(tmp_path / "model.onnx")
    changed_attribute("2.act_quant", "rounding_mode", "HALF_UP")(proto)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"part first at the layer '2\.act_quant'"):
        verify(model, tmp_path / "model.onnx", samples)


def test_a_tolerance_for_the_outputs_counts_flips_in(tmp_path: Path) -> None:
    model, samples = full_of_ties(), torch.randn(16, *IMAGE)
    export_qonnx(model, samples[:1], tmp_path / "ties.onnx")
    with pytest.raises(ExportError, match=r"at most atol = 0\.001; .* other side: 2\.act_quant \(\d+\)"):
        verify(model, tmp_path / "ties.onnx", samples, atol=1e-3)
    assert verify(model, tmp_path / "ties.onnx", samples, atol=100.0).max_abs_diff <= 100.0


def test_rounding_errors_of_a_cancellation_are_measured_not_guessed(tmp_path: Path) -> None:
    """A BatchNorm that subtracts a mean of 10000 leaves 3 digits, which no fixed tolerance covers."""
    samples = torch.randn(48, *IMAGE)
    model = nn.Sequential(
        quantized(8),
        qnn.QuantConv2d(3, 8, 3, weight_bit_width=4),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.QuantConv2d(8, 4, 3, weight_bit_width=4),
    )
    model(samples)
    model.eval()
    with torch.no_grad():
        model[1].bias.fill_(1e4)
    model[2].running_mean.fill_(1e4)
    model[2].running_var.fill_(1.0)

    report = export_qonnx(model, samples[:1], tmp_path / "model.onnx", verify_on=samples).verification
    assert report is not None and set(report.flips_by_layer) <= {"3.act_quant"}

    proto = onnx.load(tmp_path / "model.onnx")
    changed_input("2", 3, lambda mean: mean + 0.1)(proto)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="part first at the layer '2'"):
        verify(model, tmp_path / "model.onnx", samples)


# --- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch, count", [(1, 1), (1, 40), (5, 12), (5, 3), (40, 40)])
def test_all_samples_are_compared_whatever_the_batch_size(
    batch: int, count: int, mixed: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    export_qonnx(mixed, images[:batch], tmp_path / "model.onnx")
    report = verify(mixed, tmp_path / "model.onnx", images[:count])
    assert report.samples == count
    assert report.argmax_agreement == 1.0
    assert report.max_abs_diff < 1e-5


@pytest.mark.parametrize("wrong", [0, 1, 33, 39])
def test_an_error_that_only_one_sample_shows_is_found(
    wrong: int, mixed: nn.Module, good: Path, tmp_path: Path
) -> None:
    """All images but one lie in the range in which two clipping values of the input agree."""
    proto = onnx.load(good)
    changed_input("inp.act_quant", 3, lambda bits: bits + 1)(proto)
    onnx.save(proto, tmp_path / "bad.onnx")
    images = torch.zeros(40, *IMAGE)
    verify(mixed, tmp_path / "bad.onnx", images)
    images[wrong] = 100.0
    with pytest.raises(ExportError, match=r"layer 'inp\.act_quant'"):
        verify(mixed, tmp_path / "bad.onnx", images)


def test_the_step_of_the_output_is_the_product_of_the_last_scales(
    mixed: nn.Module, images: Tensor, good: Path
) -> None:
    report = verify(mixed, good, images[:4])
    step = float((mixed.fc.weight_quant.scale() * mixed.relu2.act_quant.scale()).detach())
    assert report.output_step == pytest.approx(step, rel=1e-6)
    assert report.max_diff_steps == pytest.approx(report.max_abs_diff / step)
    assert report.no_step_reason is None


@pytest.mark.parametrize(
    "name, step",
    [
        ("no input quantizer", lambda model: model[1].act_quant.scale()),
        ("bipolar activations", lambda model: 0.25),
        ("pool to 4 bits", lambda model: model[0].act_quant.scale()),
        ("embedding", None),
    ],
)
def test_the_step_of_other_outputs(name: str, step: Any, tmp_path: Path) -> None:
    case = EXPORTABLE[name]
    model = case.trained()
    report = export_qonnx(
        model, case.samples(1), tmp_path / "model.onnx", verify_on=case.samples(2)
    ).verification
    assert report is not None
    if step is None:
        assert report.output_step is report.max_diff_steps is None
        assert report.no_step_reason == "the step is lost in the operation ReduceMean (ReduceMean_0)"
    else:
        assert report.output_step == pytest.approx(
            float(torch.as_tensor(step(model.eval())).detach()), rel=1e-6
        )


def test_agreement_is_over_positions_too_and_needs_classes(tmp_path: Path) -> None:
    model = full_of_ties()[:3]
    samples = torch.randn(8, *IMAGE)
    report = export_qonnx(model, samples[:1], tmp_path / "model.onnx", verify_on=samples).verification
    assert report is not None and report.argmax_agreement is not None
    assert 0.5 < report.argmax_agreement <= 1.0
    single = nn.Sequential(quantized(), qnn.QuantLinear(6, 1, weight_bit_width=4)).eval()
    report = export_qonnx(
        single, torch.zeros(1, 6), tmp_path / "one.onnx", verify_on=torch.randn(4, 6)
    ).verification
    assert report is not None and report.argmax_agreement is None


def test_the_report_is_json(mixed: nn.Module, images: Tensor, good: Path) -> None:
    report = verify(mixed, good, images[:2])
    document = json.loads(json.dumps(report.to_dict()))
    assert document["samples"] == 2 and document["path"] == str(good)
    assert set(document) == set(report.__dataclass_fields__)


# --- arguments ---------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was(mixed: nn.Module, images: Tensor, good: Path) -> None:
    mixed.train()
    before = {name: value.clone() for name, value in mixed.state_dict().items()}
    verify(mixed, good, images[:2])
    assert all(module.training for module in mixed.modules())
    assert all(torch.equal(before[name], value) for name, value in mixed.state_dict().items())


@pytest.mark.parametrize(
    "samples, error, message",
    [
        (
            torch.zeros(2, 3, 9, 9),
            ConfigurationError,
            r"\[samples, 3, 8, 8\]; got float32 \[samples, 3, 9, 9\]",
        ),
        (torch.zeros(2, *IMAGE).double(), ConfigurationError, "got float64"),
        ((torch.zeros(2, *IMAGE), torch.zeros(2, *IMAGE)), ConfigurationError, "must fit the inputs"),
        (torch.zeros(()), ConfigurationError, "must fit the inputs"),
        ((), ConfigurationError, "`samples` must be a tensor"),
        (torch.zeros(0, *IMAGE), EmptyDataError, "no samples"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    samples: Any, error: type[Exception], message: str, mixed: nn.Module, good: Path
) -> None:
    with pytest.raises(error, match=message):
        verify(mixed, good, samples)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_tolerances_outside_their_range_are_refused(
    name: str, value: float, mixed: nn.Module, images: Tensor, good: Path
) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` must be finite and not negative; got {value}"):
        verify(mixed, good, images[:1], **{name: value})


def test_files_that_cannot_be_read_or_do_not_fit_are_refused(
    mixed: nn.Module, images: Tensor, good: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="cannot be read"):
        verify(mixed, tmp_path / "absent.onnx", images[:1])
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(ExportError, match="cannot be read"):
        verify(mixed, tmp_path / "text.onnx", images[:1])

    class TwoOutputs(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ExportError, match="The graph has 1 outputs and the model 2"):
        verify(TwoOutputs(), good, images[:1])
