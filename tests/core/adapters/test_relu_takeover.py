"""A ReLU before an unsigned quantizer is left to the quantizer, which clamps to zero anyway."""

from __future__ import annotations

import brevitas.nn as qnn
import pytest
import torch
from brevitas.proxy.runtime_quant import FusedActivationQuantProxy
from brevitas.quant import Int8ActPerTensorFloat
from torch import Tensor, nn

from gfb_brevitas.adapters import SearchableModel, make_searchable


def searchable(*layers: nn.Module) -> SearchableModel:
    torch.manual_seed(0)
    return make_searchable(nn.Sequential(*layers), torch.randn(4, 3, 6, 6))


def with_relu_as_a_step(model: SearchableModel) -> SearchableModel:
    """The same model with Brevitas' own order: ReLU, then the quantizer."""
    for module in model.modules():
        if isinstance(module, FusedActivationQuantProxy):
            module.__class__ = FusedActivationQuantProxy
            if hasattr(module.tensor_quant, "rectify"):
                module.tensor_quant.rectify = False
    return model


def small_model() -> SearchableModel:
    torch.manual_seed(1)
    return searchable(qnn.QuantConv2d(3, 8, 3), nn.BatchNorm2d(8), qnn.QuantReLU(), qnn.QuantConv2d(8, 4, 3))


def outcome(model: SearchableModel, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().mean().backward()
    return [output.detach(), x.grad, *(p.grad for p in model.parameters())]


def relu_is_left_to_quantizer(model: SearchableModel) -> list[bool]:
    return [m.rectify for m in model.modules() if hasattr(m, "rectify")]


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_values_and_gradients_are_those_of_a_relu_before_the_quantizer(bits):
    x = torch.randn(4, 3, 6, 6)
    one, other = small_model(), with_relu_as_a_step(small_model())
    assert any(relu_is_left_to_quantizer(one)) and not any(relu_is_left_to_quantizer(other))
    for model in (one, other):
        model.set_bits([bits] * len(model.profile))
    for got, wanted in zip(outcome(one, x), outcome(other, x), strict=True):
        assert torch.equal(got, wanted)


def test_state_dicts_and_calibration_are_the_same():
    one, other = small_model(), with_relu_as_a_step(small_model())
    assert list(one.state_dict()) == list(other.state_dict())
    batches = [torch.randn(8, 3, 6, 6)]
    for model in (one, other):
        model.calibrate(batches)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_frozen_model_has_its_relu_back():
    model = small_model().eval()
    frozen = model.freeze().eval()
    fused = frozen[2].act_quant.fused_activation_quant_proxy
    assert type(fused) is FusedActivationQuantProxy and isinstance(fused.activation_impl, nn.ReLU)
    x = torch.randn(4, 3, 6, 6)
    assert torch.equal(frozen(x), model(x))


def test_the_relu_stays_when_brevitas_quantizes_nothing():
    model = searchable(qnn.QuantReLU(), qnn.QuantIdentity())
    for layer in model.model:
        layer.act_quant.disable_quant = True
    x = torch.randn(4, 3, 6, 6)
    assert torch.equal(model(x), x.relu())


def test_a_signed_quantizer_does_not_rectify_so_the_relu_stays():
    model = searchable(qnn.QuantReLU(act_quant=Int8ActPerTensorFloat), qnn.QuantConv2d(3, 2, 3))
    assert not any(relu_is_left_to_quantizer(model))
    assert model.model[0](-torch.ones(1, 3, 6, 6)).abs().max() == 0
