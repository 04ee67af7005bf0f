from __future__ import annotations

import logging

import brevitas.nn as qnn
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters import make_searchable, quantize_float_model
from gfb_brevitas.errors import UntraceableModelError
from tests.core.adapters.float_networks import (
    Attention,
    Encoder,
    Functional,
    OwnLinear,
    PaddedByALayer,
    PaddedBySize,
    PaddedOnOneSide,
    Recurrent,
    Renamed,
    Scaled,
    ShortcutOfZeros,
    SqueezeAndExcite,
    Standardized,
    Twice,
    Undecided,
    UNet,
    transposed,
)
from tests.core.adapters.layer_kinds import outputs


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


TOKENS = torch.randint(0, 10, (4, 5), generator=torch.Generator().manual_seed(1))


def padded_by_layers() -> nn.Sequential:
    return nn.Sequential(
        *(PaddedByALayer(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU6()),
        *(PaddedByALayer(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 1)),
    )


# Name, network, inputs, and the numbers of its weight quantizers and of its products.
NETWORKS = [
    ("padded on one side", lambda: _behind(PaddedOnOneSide(3, 8, 3, 2)), drawn(4, 3, 8, 8), 2, 2),
    ("padded by layers", padded_by_layers, drawn(4, 3, 8, 8), 3, 3),
    ("padded by size", lambda: _behind(PaddedBySize(3, 8, 3, 2)), drawn(4, 3, 8, 8), 2, 2),
    ("renamed", lambda: _behind(Renamed(3, 8, 3)), drawn(4, 3, 8, 8), 2, 2),
    ("scaled", lambda: nn.Sequential(Scaled(6, 8), nn.ReLU(), nn.Linear(8, 4)), drawn(8, 6), 2, 2),
    ("own linear", lambda: nn.Sequential(OwnLinear(6, 8, rows=False), nn.ReLU()), drawn(8, 6), 1, 1),
    ("own matrix", lambda: nn.Sequential(OwnLinear(6, 8, rows=True), nn.ReLU()), drawn(8, 6), 1, 1),
    ("twice", lambda: Twice(0), drawn(4, 4, 8, 8), 1, 2),
    ("twice, one norm", lambda: Twice(1), drawn(4, 4, 8, 8), 1, 2),
    ("twice, two norms", lambda: Twice(2), drawn(4, 4, 8, 8), 2, 2),
    ("embedding", lambda: nn.Sequential(nn.Embedding(10, 8), nn.Flatten(), nn.Linear(40, 4)), TOKENS, 2, 1),
    ("attention, layer", lambda: Attention("layer"), drawn(4, 5, 8), 3, 5),
    ("attention, function", lambda: Attention("function"), drawn(4, 5, 8), 2, 4),
    ("attention, written out", lambda: Attention("formula"), drawn(4, 5, 8), 2, 4),
    ("encoder", Encoder, TOKENS, 6, 7),
    ("functional", Functional, drawn(4, 3, 8, 8), 4, 4),
    ("shortcut of zeros", ShortcutOfZeros, drawn(4, 3, 8, 8), 3, 3),
    ("squeeze and excite", SqueezeAndExcite, drawn(4, 3, 8, 8), 4, 4),
    ("u-net", UNet, drawn(4, 3, 8, 8), 5, 5),
    *((f"transposed, {n}d", lambda n=n: transposed(n, 1), drawn(4, 4, *(4,) * n), 2, 2) for n in (1, 2, 3)),
    ("transposed in groups, 1d", lambda: transposed(1, 2), drawn(4, 4, 6), 2, 2),
    ("transposed in groups, 2d", lambda: transposed(2, 2), drawn(4, 4, 4, 4), 2, 2),
]


def _behind(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(8, 4, 1))


@pytest.mark.parametrize(
    ("make", "inputs", "weights", "products"), [row[1:] for row in NETWORKS], ids=[row[0] for row in NETWORKS]
)
def test_networks_of_all_kinds_are_quantized_whole_and_right(make, inputs, weights, products):
    torch.manual_seed(0)
    model = make().eval()
    expected = outputs(model, inputs)
    searchable = make_searchable(quantize_float_model(model, inputs), inputs)
    profile = searchable.profile
    assert profile.float_layers == ()
    assert (sum(info.kind == "weight" for info in profile), len(profile.products)) == (weights, products)
    searchable.calibrate([inputs])
    searchable.set_allocation(searchable.space.uniform(8))
    found = outputs(searchable, inputs)
    assert (found - expected).pow(2).mean().sqrt() < 0.1 * expected.std()
    assert torch.equal(outputs(searchable.freeze(), inputs), found)


def test_layers_keep_their_names():
    quantized = quantize_float_model(padded_by_layers().eval(), drawn(2, 3, 8, 8))
    searchable = make_searchable(quantized, drawn(2, 3, 8, 8))
    assert [p.layer for p in searchable.profile.products] == ["0", "3", "6"]
    assert isinstance(quantized.get_submodule("3"), qnn.QuantConv2d)
    assert quantized.get_submodule("3").padding == (1, 1)
    assert quantized.get_submodule("0_padding").padding == (0, 1, 0, 1)
    assert any(info.feeds == ("0",) for info in searchable.profile if info.kind == "activation")


def test_what_was_done_is_told(caplog):
    with caplog.at_level(logging.INFO, logger="gfb_brevitas"):
        quantize_float_model(padded_by_layers().eval(), drawn(2, 3, 8, 8))
        quantize_float_model(Twice(1).eval(), drawn(2, 4, 8, 8))
        quantize_float_model(Twice(2).eval(), drawn(2, 4, 8, 8))
    assert "2 products of PaddedByALayer became PyTorch's layers: 0, 3." in caplog.messages
    assert "Zeros are put in front by layers of their own: 0_padding." in caplog.messages
    assert "layer is called several times, with one weight quantizer." in caplog.messages
    assert any("layer_call_2 is a layer of its own now" in message for message in caplog.messages)


def test_an_activation_that_ends_at_six_ends_there():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU6(), nn.Linear(4, 2)).eval()
    nn.init.eye_(model[0].weight)
    inputs = 20 * drawn(64, 4)
    searchable = make_searchable(quantize_float_model(model, inputs), inputs)
    searchable.calibrate([inputs])
    difference = outputs(searchable, inputs) - outputs(model, inputs)
    assert difference.abs().max() < 0.1 * outputs(model, inputs).std()
    frozen = searchable.freeze()
    assert torch.equal(outputs(frozen, inputs), outputs(searchable, inputs))
    for clipping in searchable.clipping_parameters():
        clipping.data *= 2  # the quantizer does not end at 6 any more
    assert torch.equal(outputs(searchable.freeze(), inputs), outputs(searchable, inputs))


def test_parameters_that_were_one_stay_one():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner = nn.Embedding(10, 8), nn.Linear(8, 8)
            self.head = nn.Linear(8, 10, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.inner(self.table(tokens)))

    quantized = quantize_float_model(Tied().eval(), TOKENS)
    assert quantized.get_submodule("head").weight is quantized.get_submodule("table").weight
    searchable = make_searchable(quantized, TOKENS).model
    assert searchable.get_submodule("head").weight is searchable.get_submodule("table").weight


def test_a_layer_called_twice_trains_as_one():
    quantized = quantize_float_model(Twice(0).eval(), drawn(2, 4, 8, 8))
    assert sum(isinstance(module, qnn.QuantConv2d) for module in quantized.modules()) == 1
    quantized.train()(drawn(2, 4, 8, 8)).sum().backward()
    assert quantized.get_submodule("layer").weight.grad is not None


@pytest.mark.parametrize(
    ("layer", "inputs", "reason"),
    [
        (Standardized(3, 8, 3), drawn(2, 3, 8, 8), "Standardized is a subclass of Conv2d"),
        (Undecided(8, 8), drawn(2, 8), "Undecided is a subclass of Linear"),
        (nn.GRU(8, 8), drawn(3, 2, 8), "Brevitas has no quantized GRU"),
        (nn.EmbeddingBag(10, 8), TOKENS, "Brevitas has no quantized EmbeddingBag"),
    ],
)
def test_what_stays_in_floating_point_is_named_with_its_reason(caplog, layer, inputs, reason):
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.head = layer, nn.Linear(8 if inputs.dim() < 4 else 6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.odd(x)
            return self.head(y[0] if isinstance(self.odd, nn.GRU) else y)

    quantized = quantize_float_model(Model().eval(), inputs)
    assert "The weights of 1 layers stay in floating point: odd" in caplog.text and reason in caplog.text
    (found,) = make_searchable(quantized, inputs).profile.float_layers
    assert found.name.startswith("odd") and reason in found.reason
    assert found.weights == sum(p.numel() for p in layer.parameters() if p.dim() > 1)
    assert 0 < found.weights_share < 1


def test_a_recurrent_layer_is_quantized():
    for kind in (nn.LSTM, nn.RNN):
        inputs = drawn(4, 3, 5)
        torch.manual_seed(0)
        model = Recurrent(kind).eval()
        searchable = make_searchable(quantize_float_model(model, inputs), inputs)
        searchable.calibrate([inputs])
        expected = outputs(model, inputs)
        assert (outputs(searchable, inputs) - expected).abs().max() < 0.3 * expected.std()
        assert {layer.operands for layer in searchable.profile.float_layers} <= {"inputs"}


def test_a_decision_by_values_is_an_error_with_its_line():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({"fc": nn.Linear(6, 6)})

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner["fc"](x)
            return x if x.sum() > 0 else -x

    at = r", at .*test_float_networks\.py:\d+ \(return x if x\.sum\(\) > 0"
    with pytest.raises(UntraceableModelError, match=r"cannot follow Branching" + at):
        quantize_float_model(Branching(), drawn(2, 6))
    with pytest.raises(UntraceableModelError, match=r"cannot follow its layer '1' \(Branching\)" + at):
        quantize_float_model(nn.Sequential(nn.Linear(6, 6), Branching()), drawn(2, 6))


def test_a_failed_quantization_changes_nothing_of_brevitas():
    import brevitas.config
    from brevitas.graph import quantize_impl

    before = brevitas.config.IGNORE_MISSING_KEYS, quantize_impl.MAX_RESIDUAL_ITERS
    with pytest.raises(UntraceableModelError):
        quantize_float_model(nn.Sequential(nn.Linear(6, 2)), drawn(2, 7))
    quantize_float_model(Functional().eval(), drawn(2, 3, 8, 8))
    assert before == (brevitas.config.IGNORE_MISSING_KEYS, quantize_impl.MAX_RESIDUAL_ITERS)
