"""The hardware layers of models; that they are FINN's own is tested in tests/integrations/finn."""

from __future__ import annotations

import brevitas.nn as qnn
import numpy as np
import pytest
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.dataflow import HardwareGraph, hardware_graph
from gfb_brevitas.errors import ConfigurationError
from tests.core.costs.small_profiles import two_layers
from tests.core.dataflow.networks import conv, entry, linear, perceptron, relu, searchable


def kinds(graph: HardwareGraph) -> list[str]:
    return [layer.node.kind + getattr(layer.node, "operation", "") for layer in graph]


def test_convolutions_are_windows_and_products_with_their_activations(plain_network):
    assert kinds(hardware_graph(plain_network.profile)) == [
        *("Thresholding", "FMPadding", "ConvolutionInputGenerator", "MVAU"),
        *("ConvolutionInputGenerator", "Pool"),
        *("FMPadding", "ConvolutionInputGenerator", "VVAU", "MVAU"),
        *("ConvolutionInputGenerator", "Pool"),
        *("MVAU", "ElementwiseMul", "ElementwiseAdd"),
    ]


def test_standalone_activations_are_layers(plain_network):
    graph = hardware_graph(plain_network.profile, standalone_thresholds=True)
    assert kinds(graph).count("Thresholding") == 4
    assert not any(getattr(layer.node, "thresholds", False) for layer in graph)


def test_a_value_that_two_layers_read_is_duplicated(residual_network):
    graph = hardware_graph(residual_network.profile)
    assert kinds(graph).count("DuplicateStreams") == kinds(graph).count("ElementwiseAdd") == 1
    total = next(layer for layer in graph if layer.node.kind == "Elementwise" and len(layer.inputs) == 2)
    assert len(set(total.inputs)) == 2
    copies = next(i for i, layer in enumerate(graph) if layer.node.kind == "DuplicateStreams")
    assert sum(layer.inputs.count(copies) for layer in graph) == 2


def test_a_flattened_input_is_left_to_the_host_and_a_view_is_not():
    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = perceptron()[1:]

        def forward(self, x):
            return self.layers(x.view(x.shape[0], -1))

    assert kinds(hardware_graph(searchable(perceptron()).profile))[0] == "Thresholding"
    assert kinds(hardware_graph(searchable(View()).profile))[:2] == ["Reshape", "Thresholding"]


def test_an_image_at_the_end_is_brought_to_channels_first():
    graph = hardware_graph(searchable(nn.Sequential(entry(), conv(3, 5, kernel_size=1, padding=0))).profile)
    assert kinds(graph) == ["Thresholding", "MVAU", "Shuffle", "ElementwiseMul"]


def test_widths_follow_the_quantizers(plain_network):
    graph, space = hardware_graph(plain_network.profile), plain_network.space
    names = plain_network.profile.names
    bits = np.full((2, len(names)), 4)
    bits[1] = space.bits(plain_network.allocation)
    bits[0, names.index("1.weight_quant")] = 7
    first = next(i for i, layer in enumerate(graph) if layer.node.kind == "MVAU")
    (widths,) = graph.widths(bits, [first])
    assert widths.weights.bits.tolist() == [7, 4]
    assert widths.inputs.bits.tolist() == [4, 8]
    assert widths.outputs.bits.tolist() == [4, 4]
    assert not widths.outputs.is_signed.any()


def test_the_accumulator_holds_half_of_what_the_data_types_allow():
    model = searchable(nn.Sequential(nn.Flatten(), entry(), linear(192, 10, bias=False)))
    graph = hardware_graph(model.profile)
    bits = np.array([[8, 4], [2, 8]])[
        :, [model.profile.column("1.act_quant"), model.profile.column("2.weight_quant")]
    ]
    (widths,) = graph.widths(bits, [1])
    largest = 192 * np.array([128 * 7, 2 * 127]).astype(float) / 2
    assert widths.accumulator_bits.tolist() == (np.ceil(np.log2(largest + 1)) + 1).tolist()


def test_bipolar_weights_take_two_bits_unless_the_activations_are_bipolar_too():
    weights = {"bits": 1, "weight_quant": SignedBinaryWeightPerTensorConst, "scaling_init": 1.0}
    model = nn.Sequential(
        entry(),
        *(
            conv(3, 4, **weights),
            qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, scaling_init=1.0),
        ),
        *(conv(4, 4, **weights), relu()),
    )
    graph = hardware_graph(searchable(model).profile)
    products = [i for i, layer in enumerate(graph) if layer.node.kind == "MVAU"]
    found = graph.widths(np.full((1, 2), 4), products)
    assert [int(w.weights.bits[0]) for w in found] == [2, 1]
    assert [int(w.inputs.bits[0]) for w in found] == [4, 1]


@pytest.mark.parametrize(
    "model, layer",
    [
        (nn.Sequential(conv(3, 4), relu()), "'0'"),
        (nn.Sequential(entry(), conv(3, 6, groups=3), relu()), "'1'"),
        (nn.Sequential(entry(), nn.Conv2d(3, 4, 3), relu()), "'1'"),
        (nn.Sequential(entry(), conv(3, 4), nn.Sigmoid(), relu()), "sigmoid"),
    ],
)
def test_what_has_no_hardware_layer_is_named(model, layer):
    profile = searchable(model).profile
    with pytest.raises(ConfigurationError, match=layer):
        hardware_graph(profile)


def test_a_profile_without_layers_has_no_hardware():
    target = gfb.dataflow.Target(board="Pynq-Z1", fps=1000)
    with pytest.raises(ConfigurationError, match="make_searchable"):
        gfb.dataflow.Accelerator.of(two_layers(), target)
