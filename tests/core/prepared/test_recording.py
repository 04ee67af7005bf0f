from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from torch import Tensor, fx, nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.prepared import PreparedForward, forward, integer_products_available
from gfb_brevitas.prepared.capture import Captured
from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.leaf_operators import QUANTIZE
from gfb_brevitas.prepared.site_values import SiteValues
from gfb_brevitas.quant import RuntimeBitWidth
from tests.core.prepared.preparing import Block, images, searchable_model

aten = torch.ops.aten
Fault = Callable[[Captured], None]


@pytest.fixture(scope="module")
def trained() -> SearchableModel:
    """A residual network that tells apart noisy patterns, trained until its loss is small."""
    layers = [
        *(qnn.QuantIdentity(return_quant_tensor=True), qnn.QuantConv2d(3, 16, 3, padding=1, bias=False)),
        *(nn.BatchNorm2d(16), qnn.QuantReLU(return_quant_tensor=True), Block(16, 16, 1)),
        *(nn.MaxPool2d(2), nn.Flatten(), qnn.QuantLinear(16 * 36, 10, bias=True)),
    ]
    model = searchable_model(nn.Sequential(*layers), images())
    model.set_bits([6] * len(model.profile))
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 3, 12, 12, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(90):
        labels = torch.randint(0, 10, (64,), generator=generator)
        x = patterns[labels] + 0.2 * torch.randn(64, 3, 12, 12, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.15
    return model.eval()


def nodes_of(captured: Captured, *targets: Any) -> list[fx.Node]:
    return [node for node in captured.graph.graph.nodes if node.target in targets]


def constant_of(captured: Captured, node: Any) -> Tensor:
    """A weight, behind the quantizer that reads it."""
    while node.op != "get_attr":
        node = node.args[0]
    value: Tensor = getattr(captured.graph, str(node.target))
    return value


def put(captured: Captured, node: Any, value: Tensor) -> None:
    """Another constant in the place of one that a node reads."""
    name = f"wrong_{len(captured.graph.graph.nodes)}"
    captured.graph.register_buffer(name, value)
    with captured.graph.graph.inserting_before(node):
        node.replace_all_uses_with(captured.graph.graph.get_attr(name))


def activation_quantizers(captured: Captured) -> list[fx.Node]:
    from_input = set(depends_on_input(captured.graph.graph))
    return [node for node in nodes_of(captured, QUANTIZE) if node in from_input]


def batch_norms(captured: Captured) -> list[fx.Node]:
    return [n for n in captured.graph.graph.nodes if "batch_norm" in str(n.target)]


def missing_quantizer(captured: Captured) -> None:
    node = activation_quantizers(captured)[2]
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]


def missing_layer(captured: Captured) -> None:
    second = nodes_of(captured, aten.convolution.default)[2]  # as many channels in as out
    second.replace_all_uses_with(second.args[0])  # type: ignore[arg-type]


def missing_addition(captured: Captured) -> None:
    node = nodes_of(captured, aten.add.Tensor)[-1]
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]


def swapped_weights(captured: Captured) -> None:
    one, other = (nodes_of(captured, aten.convolution.default)[n].args[1].args[0] for n in (1, 2))  # type: ignore[union-attr]
    first, second = constant_of(captured, one).clone(), constant_of(captured, other).clone()
    put(captured, one, second)
    put(captured, other, first)


def swapped_channels(captured: Captured) -> None:
    factor = batch_norms(captured)[1].args[1]
    value = constant_of(captured, factor).clone()
    put(captured, factor, value[[1, 0, *range(2, len(value))]])


def percent_off(captured: Captured) -> None:
    offset = batch_norms(captured)[1].args[2]
    put(captured, offset, constant_of(captured, offset) * 1.01)


def percent_off_in_the_last_layer(captured: Captured) -> None:
    bias = nodes_of(captured, aten.addmm.default)[0].args[0]
    put(captured, bias, constant_of(captured, bias) * 1.01)


def stale_statistic(captured: Captured) -> None:
    mean = batch_norms(captured)[1].args[3]
    value = constant_of(captured, mean)
    put(captured, mean, 0.9 * value + 0.05 * value.std())  # an update with momentum 0.1 ago


def stale_parameter(captured: Captured) -> None:
    factor = batch_norms(captured)[1].args[1]
    put(captured, factor, constant_of(captured, factor) * 0.99)


def wrong_width(captured: Captured) -> None:
    for site in captured.sites[::3]:  # weights and activations
        if isinstance(site, SiteValues):
            site.holder = OneBitLess(site.holder)  # type: ignore[assignment]


def wrong_quantizer(captured: Captured) -> None:
    one, other = activation_quantizers(captured)[1:3]
    one.args, other.args = (one.args[0], other.args[1]), (other.args[0], one.args[1])


class OneBitLess:
    def __init__(self, width: RuntimeBitWidth) -> None:
        self._width = width

    @property
    def bits(self) -> int:
        return max(2, self._width.bits - 1)


FAULTS: list[tuple[BatchNormStatistics, Fault]] = [
    (statistics, fault)
    for statistics in ("running", "batch")
    for fault in (
        missing_quantizer,
        missing_layer,
        missing_addition,
        swapped_weights,
        swapped_channels,
        percent_off,
        percent_off_in_the_last_layer,
        stale_statistic if statistics == "running" else stale_parameter,
        wrong_width,
        wrong_quantizer,
    )
]


def made(
    model: SearchableModel, fault: Fault | None, batchnorm: BatchNormStatistics, monkeypatch: Any
) -> PreparedForward:
    prepare = forward.prepare

    def wrongly(captured: Captured, *args: Any, **settings: Any) -> Any:
        if fault is not None:
            fault(captured)
        return prepare(captured, *args, **settings)

    monkeypatch.setattr(forward, "prepare", wrongly)
    prepared = PreparedForward(model, integers=integer_products_available())
    with inference_only(model, batchnorm), prepared.active():
        model(images(16, seed=1))  # so few that nothing is compiled
    return prepared


@pytest.mark.parametrize(("batchnorm", "fault"), FAULTS)
def test_a_program_made_wrong_on_purpose_is_not_used(
    trained: SearchableModel, fault: Fault, batchnorm: BatchNormStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = made(trained, fault, batchnorm, monkeypatch)
    assert not prepared.has_programs
    assert all("computes something else than the model" in text for text in prepared.fallbacks)


@pytest.mark.parametrize("batchnorm", ["running", "batch"])
def test_a_right_program_is_used_whatever_the_network_makes_of_rounding(
    trained: SearchableModel, batchnorm: BatchNormStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = made(trained, None, batchnorm, monkeypatch)
    assert prepared.has_programs
    assert not any("something else" in text for text in prepared.fallbacks)
