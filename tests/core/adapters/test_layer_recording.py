from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat, Int8Bias, ShiftedUint8ActPerTensorFloat
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters import record_layers
from gfb_brevitas.errors import ConfigurationError, UntraceableModelError
from gfb_brevitas.layer_graph import LayerGraph


class Residual(nn.Module):
    """Convolutions, one depthwise, a residual addition, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_in = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(1, 4, 3, padding=1, bias=False, weight_bit_width=3)
        self.norm = nn.BatchNorm2d(4)
        self.shared = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.relu = qnn.QuantReLU(bit_width=5, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = qnn.QuantConv2d(
            4, 4, (3, 1), stride=(2, 1), groups=4, bias=True, bias_quant=Int8Bias, weight_bit_width=2
        )
        self.average = qnn.TruncAvgPool2d((1, 4), bit_width=4)
        self.head = qnn.QuantLinear(4, 2, bias=True, weight_bit_width=6)

    def forward(self, x: Tensor) -> Any:
        x = self.shared(self.quant_in(x))
        x = self.relu(x + self.shared(self.norm(self.conv(x))))
        x = self.average(self.relu(self.depthwise(self.pool(x))))
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def graph() -> LayerGraph:
    torch.manual_seed(0)
    return record_layers(Residual(), torch.randn(3, 1, 8, 8))


def test_operations_come_in_the_order_of_the_forward_pass(graph: LayerGraph) -> None:
    assert [(node.name, node.op) for node in graph] == [
        ("input", "input"),
        ("quant_in.act_quant", "quantize"),
        ("shared.act_quant", "quantize"),
        ("conv", "conv"),
        ("norm.batch_norm", "batch_norm"),
        ("shared.act_quant#2", "quantize"),
        ("add", "add"),
        ("relu.act_quant", "quantize"),
        ("pool.max_pool", "max_pool"),
        ("depthwise", "conv"),
        ("relu.act_quant#2", "quantize"),
        ("average.avg_pool", "avg_pool"),
        ("average.trunc_quant", "quantize"),
        ("reshape", "reshape"),
        ("head", "linear"),
        ("output", "output"),
    ]


def test_edges_and_shapes_per_sample(graph: LayerGraph) -> None:
    add = graph["add"]
    assert set(add.inputs) == {"shared.act_quant", "shared.act_quant#2"}
    assert add.shape == (4, 8, 8)
    assert [node.name for node in graph.consumers(graph["shared.act_quant"])] == ["conv", "add"]
    assert [node.name for node in graph.producers(graph["head"])] == ["reshape"]
    assert graph["average.avg_pool"].shape == (4, 1, 1)
    assert graph["output"].shape == (2,)


def test_quantizers(graph: LayerGraph) -> None:
    relu, entry = graph["relu.act_quant"].attributes, graph["quant_in.act_quant"].attributes
    assert (relu["bits"], relu["signed"], relu["activation"], relu["kind"]) == (
        5,
        False,
        "ReLU",
        "activation",
    )
    assert (entry["bits"], entry["signed"], entry["activation"]) == (8, True, "")
    assert not entry["zero_point"] and not entry["per_channel"] and entry["scale"] > 0
    truncation = graph["average.trunc_quant"].attributes
    assert (truncation["kind"], truncation["bits"], truncation["rounding"]) == ("truncation", 4, "ROUND")
    assert graph["shared.act_quant#2"].attributes["quantizer"] == "shared.act_quant"


def test_products(graph: LayerGraph) -> None:
    depthwise, head = graph["depthwise"].attributes, graph["head"].attributes
    assert (depthwise["kernel"], depthwise["stride"], depthwise["groups"]) == ((3, 1), (2, 1), 4)
    assert (depthwise["in_channels"], depthwise["out_channels"]) == (4, 4)
    assert (depthwise["weight_quantizer"], depthwise["weight_bits"]) == ("depthwise.weight_quant", 2)
    assert (depthwise["bias"], depthwise["bias_quantizer"]) == (True, "depthwise.bias_quant")
    assert (head["in_features"], head["out_features"], head["vectors"]) == (4, 2, 1)
    assert (head["bias"], head["bias_quantizer"], head["weight_narrow_range"]) == (True, None, True)
    assert graph["pool.max_pool"].attributes == {
        "kernel": (2, 2),
        "stride": (2, 2),
        "padding": (0, 0),
        "dilation": (1, 1),
        "ceil_mode": False,
        "adaptive": False,
    }


def test_a_searchable_model_has_the_graph_of_the_model_that_it_was_made_from(graph: LayerGraph) -> None:
    torch.manual_seed(0)
    layers = gfb.make_searchable(Residual(), torch.randn(3, 1, 8, 8)).profile.layers
    assert [(n.name, n.op, n.inputs, n.shape) for n in layers] == [
        (n.name, n.op, n.inputs, n.shape) for n in graph
    ]


def test_a_shared_quantizer_has_the_name_that_the_allocation_has_for_it() -> None:
    model = nn.Sequential(qnn.QuantLinear(4, 4, bias=False), qnn.QuantLinear(4, 4, bias=False))
    model[1].weight = model[0].weight
    model[1].weight_quant = model[0].weight_quant
    searchable = gfb.make_searchable(model, torch.randn(2, 4))
    named = {node.attributes["weight_quantizer"] for node in searchable.profile.layers.of("linear")}
    assert named == set(searchable.profile.names)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantize = qnn.QuantIdentity(return_quant_tensor=False)
        self.linear = qnn.QuantLinear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.quantize(x))
        y = torch.relu(x).mean((2, 3)) if x.dim() == 4 else torch.relu(x)
        attention = torch.softmax(y @ y.transpose(-2, -1), -1)
        return torch.cat([attention @ y, 2 * y], dim=-1)


def test_functional_code_is_seen_too() -> None:
    graph = record_layers(Functional(), torch.randn(2, 5, 6))
    assert [n.op for n in graph if n.op not in ("reshape", "input", "output")] == [
        *("quantize", "linear", "relu", "matmul", "other", "matmul", "mul", "concat"),
    ]
    linear, doubled = next(graph.of("linear")), next(graph.of("mul"))
    assert linear.attributes["vectors"] == 5
    assert doubled.attributes["constant"]
    assert next(graph.of("concat")).attributes["dim"] in (-1, 2)
    assert next(graph.of("other")).attributes["target"] == "aten._softmax"


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(6)], ids=["adaptive", "whole"])
def test_an_average_over_all_positions_is_as_large_as_its_input(pool: nn.Module) -> None:
    graph = record_layers(nn.Sequential(qnn.QuantIdentity(), pool), torch.randn(2, 3, 6, 6))
    assert next(graph.of("avg_pool")).attributes["kernel"] == (6, 6)


def test_zero_points_and_several_scales_are_told() -> None:
    shifted = qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat)
    shifted(torch.rand(8, 3, 4, 4) - 0.3)
    graph = record_layers(shifted, torch.randn(2, 3, 4, 4))
    assert next(graph.of("quantize")).attributes["zero_point"]
    several = qnn.QuantIdentity(
        act_quant=Int8ActPerTensorFloat,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 3, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3),
    )
    attributes = next(record_layers(several, torch.randn(2, 3, 4, 4)).of("quantize")).attributes
    assert attributes["per_channel"] and attributes["scale"] is None


def test_branches_with_different_scales_are_recorded_though_brevitas_refuses_to_add_them() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
            self.two = qnn.QuantIdentity(bit_width=3, return_quant_tensor=True)

        def forward(self, x: Tensor) -> Any:
            return self.one(x) + self.two(3 * x)

    model = Branches()
    x = torch.randn(2, 4)
    graph = record_layers(model, x)
    assert set(next(graph.of("add")).inputs) == {"one.act_quant", "two.act_quant"}
    with pytest.raises(RuntimeError, match="different"):
        model.eval()(x)


def test_training_flags_and_outputs_stay() -> None:
    model = Residual()
    x = torch.randn(3, 1, 8, 8)
    model.eval()
    before = model(x)
    model.train()
    model.norm.eval()
    record_layers(model, x)
    assert model.training and not model.norm.training
    assert torch.equal(model.eval()(x), before)


def test_a_failing_forward_pass_is_told_with_its_cause() -> None:
    with pytest.raises(UntraceableModelError, match="expected input"):
        record_layers(Residual(), torch.randn(3, 2, 8, 8))
    with pytest.raises(ConfigurationError, match="must be an instance"):
        record_layers(Residual, torch.randn(1))  # type: ignore[arg-type]


def test_flattening_is_told_from_other_reshapes() -> None:
    class Shapes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.flatten(x, 1).view(-1, 3, 4)
            return nn.Flatten()(x.flatten(1).reshape(-1, 2, 6))

    targets = [n.attributes["target"] for n in record_layers(Shapes(), torch.randn(2, 3, 2, 2)).of("reshape")]
    assert targets == ["aten.flatten", "aten.view", "aten.flatten", "aten.view", "aten.flatten"]
