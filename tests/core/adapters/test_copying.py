"""Copies of models that are hard to copy: computed tensors, parametrizations, scales made at first use."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import fixed_point, scaled_int, shifted_scaled_int
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm
from torch.nn.utils.parametrize import register_parametrization

import gfb_brevitas as gfb
from gfb_brevitas.adapters.copying import copied, with_plain_weights

ROOT = Path(__file__).parents[3]
X = torch.linspace(-1, 1, 32).reshape(4, 8)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Keeps(nn.Module):
    """Keeps what its forward pass computed, as it is and in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(return_quant_tensor=True)
        self.layer = qnn.QuantLinear(8, 4, bias=True)
        self.kept: Any = {}

    def forward(self, x: Tensor) -> Any:
        y = self.layer(self.input(x))
        self.kept = {"last": y, "list": [(y * 2, "text")], "quantized": self.layer.quant_weight()}
        return y


def network(change: Callable[[Any], Any], layer: Any = None) -> nn.Module:
    torch.manual_seed(0)
    layer = layer or qnn.QuantLinear(8, 4, bias=True)
    change(layer)
    return nn.Sequential(qnn.QuantIdentity(return_quant_tensor=True), layer)


def with_weight_norm(layer: nn.Module) -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(layer)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned twice": lambda layer: (
        prune.random_unstructured(layer, "weight", 0.2),
        prune.l1_unstructured(layer, "weight", 0.5),
        prune.l1_unstructured(layer, "bias", 1),
    ),
    "weight norm": with_weight_norm,
    "spectral norm": spectral_norm,
    "weight norm, parametrized": parametrizations.weight_norm,
    "spectral norm, parametrized": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own parametrization": lambda layer: register_parametrization(layer, "weight", Halved()),
}


def values(output: Any) -> Tensor:
    tensor: Tensor = getattr(output, "value", output)
    return tensor.detach()


@pytest.mark.parametrize("name", CHANGES)
def test_computed_weights_are_searched_trained_and_frozen(name: str) -> None:
    model = network(CHANGES[name])
    before, training = values(model.eval()(X)), [key for key, _ in model.named_parameters()]
    searchable = gfb.make_searchable(model, X)
    searchable.calibrate([X])
    optimizer = torch.optim.SGD(searchable.parameters(), lr=0.01)
    searchable.train()(X).square().sum().backward()
    optimizer.step()
    searchable.eval()
    assert torch.equal(values(searchable(X)), values(searchable.freeze().eval()(X)))
    assert torch.equal(values(model(X)), before)
    assert [key for key, _ in model.named_parameters()] == training


@pytest.mark.parametrize("name", CHANGES)
def test_weights_are_made_plain_without_a_trace_in_the_original(name: str) -> None:
    model = network(CHANGES[name]).eval()
    expected = values(model(X))
    for _ in range(2):
        plain: Any = with_plain_weights(copied(model)).eval()
        assert isinstance(plain[1].weight, nn.Parameter)
        assert type(plain[1]) is qnn.QuantLinear
        assert [key for key, _ in plain.named_parameters() if "orig" in key] == []
        assert torch.equal(values(plain(X)), expected)
        assert torch.equal(values(model(X)), expected)


def test_pruned_weights_stay_pruned_while_the_search_trains() -> None:
    searchable = gfb.make_searchable(network(CHANGES["pruned"]), X)
    layer: Any = searchable.model[1]  # type: ignore[index]
    gone = layer.weight_mask == 0
    optimizer = torch.optim.SGD(searchable.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (searchable(X) - 1).square().sum().backward()
        optimizer.step()
    searchable(X)
    assert bool((layer.weight[gone] == 0).all())
    assert bool((layer.weight[~gone] != 0).any())


def test_tensors_that_a_forward_pass_kept() -> None:
    model = Keeps()
    model(X)
    searchable = gfb.make_searchable(model, X)
    kept = searchable.model.kept
    assert not kept["last"].requires_grad or kept["last"].is_leaf
    assert model.kept["last"].grad_fn is not None
    assert values(searchable.freeze().eval()(X)).shape == (4, 4)


def test_what_cannot_be_copied_is_named() -> None:
    model = network(lambda layer: setattr(layer, "lock", threading.Lock()))
    with pytest.raises(gfb.GfbError, match="the attribute 'lock' of the module '1', a lock: delete it"):
        gfb.make_searchable(model, X)
    with pytest.raises(gfb.GfbError, match="the attribute 'lock' of the module '1'"):
        gfb.apply_allocation(model, {"0.act_quant": 4, "1.weight_quant": 4})


def test_normalized_weights_must_be_parameters() -> None:
    for name in ("pruned", "weight norm, parametrized"):
        with pytest.raises(gfb.ConfigurationError, match="`weight_normalization` needs weights"):
            gfb.make_searchable(network(CHANGES[name]), X, weight_normalization=True)


LAZY_WEIGHTS = (
    scaled_int.Int8WeightPerTensorFloatMSE,
    scaled_int.Int8WeightPerChannelFloatMSE,
    fixed_point.Int8WeightPerTensorFixedPointMSE,
    scaled_int.Int8WeightPerTensorFloatHQO,
    shifted_scaled_int.ShiftedUint8WeightPerTensorFloatMSE,
)
LAZY_ACTIVATIONS = (
    fixed_point.Int8ActPerTensorFixedPointMSE,
    shifted_scaled_int.ShiftedUint8ActPerTensorFloatMSE,
    fixed_point.Uint8ActPerTensorFixedPointMSE,
)


@pytest.mark.filterwarnings("ignore:Computing zero point")
@pytest.mark.parametrize("weight", LAZY_WEIGHTS)
@pytest.mark.parametrize("runs_before", [False, True])
def test_weight_scales_made_at_first_use(weight: Any, runs_before: bool) -> None:
    model = network(lambda layer: None, qnn.QuantLinear(8, 4, bias=True, weight_quant=weight)).eval()
    if runs_before:
        model(X)
    searchable = gfb.make_searchable(model, X)
    applied = gfb.apply_allocation(model, searchable.space.uniform(4))
    assert values(applied.eval()(X)).shape == (4, 4)
    searchable.calibrate([X])
    frozen = searchable.eval().freeze().eval()
    assert torch.equal(values(frozen(X)), values(searchable(X)))
    fresh = searchable.freeze().eval()
    fresh.load_state_dict(frozen.state_dict())
    assert torch.equal(values(fresh(X)), values(frozen(X)))
    assert torch.isfinite(values(model(X))).all()


@pytest.mark.filterwarnings("ignore:Computing zero point")
@pytest.mark.parametrize("act", LAZY_ACTIVATIONS)
def test_activation_scales_made_at_first_use(act: Any) -> None:
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=act, return_quant_tensor=True), qnn.QuantLinear(8, 4, bias=False)
    )
    searchable = gfb.make_searchable(model, X)
    searchable.calibrate([X])
    searchable.train()(X).sum().backward()
    searchable.eval()
    assert torch.equal(values(searchable.freeze().eval()(X)), values(searchable(X)))


def test_modules_are_copied_in_one_place_only() -> None:
    allowed = {
        "adapters/copying.py",  # the place
        "search/search_study.py",  # trials
        "search/checkpoint.py",  # states
        "samplers/_run.py",  # CMA-ES's own state
        "qonnx/_execution.py",  # an ONNX graph
        "worker/stages.py",  # likewise
    }
    for folder in ("gfb_brevitas", "integrations"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            if any(ast.unparse(call.func).split(".")[-1] == "deepcopy" for call in calls):
                assert "/".join(path.parts[-2:]) in allowed, path
