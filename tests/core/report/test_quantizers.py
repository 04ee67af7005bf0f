from __future__ import annotations

import io

import brevitas.nn as qnn
import brevitas.quant as bq
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from gfb_brevitas import Range, SearchableModel, make_searchable
from gfb_brevitas.floating_point import float_layers_headline, stays_in_floats
from gfb_brevitas.report import profile_table


class Network(nn.Module):
    """A tie, a scale of Brevitas' own, scales per channel, and quantizers that are not searched."""

    def __init__(self) -> None:
        super().__init__()
        self.first = qnn.QuantLinear(4, 6, bias=True, bias_quant=bq.Int8BiasPerTensorFloatInternalScaling)
        self.left = qnn.QuantIdentity(return_quant_tensor=True)
        self.right = qnn.QuantIdentity(return_quant_tensor=True)
        self.fixed_point = qnn.QuantIdentity(bq.Int8ActPerTensorFixedPoint)
        self.binary = qnn.QuantIdentity(bq.SignedBinaryActPerTensorConst)
        self.last = qnn.QuantLinear(6, 3, bias=False, weight_quant=bq.Int8WeightPerChannelFloat)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.binary(self.fixed_point(self.left(x) + self.right(-x))))


@pytest.fixture(scope="module")
def model() -> SearchableModel:
    return make_searchable(Network(), torch.zeros(2, 4), rules=[Range("last.*", 2, 4)])


def printed(table: object, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_every_quantizer_has_a_row_with_what_it_feeds(model: SearchableModel) -> None:
    rows = [line.split() for line in printed(profile_table(model.profile))]
    assert rows[0] == ["quantizer", "kind", "bits", "elements", "MACs", "scale", "per"]
    assert ["first.weight_quant", "weight", "1-8", "24", "24", "tensor"] in rows
    assert ["left.act_quant", "activation", "1-8", "6", "0", "tensor"] in rows
    assert ["fixed_point.act_quant", "activation", "2-8", "6", "0", "tensor", "(Brevitas')"] in rows
    assert ["last.weight_quant", "weight", "1-8", "18", "18", "channel"] in rows


def test_an_allocation_shows_its_widths(model: SearchableModel) -> None:
    allocation = model.space.uniform(3, 5)
    rows = [line.split() for line in printed(profile_table(model.profile, allocation))]
    for info in model.profile:
        assert [info.name, info.kind, str(allocation[info.name])] in [row[:3] for row in rows]


def test_ties_and_what_is_not_searched_are_listed_below(model: SearchableModel) -> None:
    text = " ".join(" ".join(printed(profile_table(model.profile))).split())
    assert "one width: left.act_quant, right.act_quant" in text
    assert "not searched (bias quantizers keep their width): first.bias_quant" in text
    assert "not searched (binary quantizer: it has no other width): binary.act_quant" in text


def test_nothing_is_listed_where_there_is_nothing() -> None:
    layers = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(4, 2, bias=False))
    plain = make_searchable(layers, torch.zeros(1, 4))
    assert len(printed(profile_table(plain.profile))) == 4


def test_what_stays_in_floating_point_is_listed_with_its_share() -> None:
    layers = nn.Sequential(qnn.QuantIdentity(), nn.Linear(4, 12), qnn.QuantIdentity(), qnn.QuantLinear(12, 4))
    profile = make_searchable(layers, torch.zeros(1, 4)).profile
    text = " ".join(" ".join(printed(profile_table(profile))).split())
    assert "in floating point (it is PyTorch's Linear, not Brevitas' QuantLinear): 1 (Linear, 50.0%" in text
    assert stays_in_floats(profile.float_layers)
    assert float_layers_headline(profile.float_layers) == (
        "1 layer stays in floating point: 50% of the multiply-accumulates and 50% of the weights, "
        "of which no budget sees a width."
    )
    assert float_layers_headline(()) == "" and not stays_in_floats(())


def test_the_table_fits_into_80_columns_with_whole_names() -> None:
    layers = [(f"{'block' * 8}{number}", qnn.QuantLinear(4, 4, bias=False)) for number in range(2)]
    module = nn.Sequential()
    for name, layer in layers:
        module.add_module(name, layer)
    lines = printed(profile_table(make_searchable(module, torch.zeros(1, 4)).profile))
    assert max(map(len, lines)) <= 80
    folded = "".join(line.split()[0] for line in lines[2 : lines.index("")])
    assert folded == "".join(f"{name}.weight_quant" for name, _ in layers)


def test_layers_that_are_only_numbers_are_named_by_kind_and_shape() -> None:
    module = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(1, 8, 3, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(128, 3, bias=False),
    )
    profile = make_searchable(module, torch.zeros(1, 1, 6, 6)).profile
    assert [info.layer for info in profile] == ["Identity", "Conv2d 1->8 3x3", "ReLU", "Linear 128->3"]
    lines = printed(profile_table(profile))
    assert max(map(len, lines)) <= 80
    assert any("1.weight_quant" in line and "Conv2d" in line for line in lines)
