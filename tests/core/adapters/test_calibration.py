from __future__ import annotations

import copy

import brevitas.nn as qnn
import brevitas.quant as bq
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters import make_searchable
from gfb_brevitas.errors import CalibrationError, EmptyDataError
from gfb_brevitas.quant import IntegerFormat, Samples, fake_quantize, mse_optimal_clipping
from gfb_brevitas.rules import Fix
from tests.core.adapters.layer_kinds import PARAMETER_SCALE, Forward, Quantizers, outputs, trained

Q = Quantizers()
SIGNED = IntegerFormat.plain(signed=True, narrow_range=False)


def small_net() -> nn.Module:
    return nn.Sequential(
        qnn.QuantIdentity(),
        qnn.QuantConv2d(3, 4, 3, weight_quant=Q.channel_weight),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        qnn.QuantLinear(4 * 36, 5, True),
    )


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8)


def test_activations_get_the_best_clipping_for_the_data():
    x = 3 * torch.randn(50, 100)
    searchable = make_searchable(nn.Sequential(qnn.QuantIdentity()), x, clipping="per_bit")
    searchable.calibrate([x])
    values = searchable.clipping_values()["0.act_quant"]
    for bits in range(2, 9):

        def error(a: float, bits: int = bits) -> float:
            return float((fake_quantize(x, torch.tensor(a), bits, SIGNED)[0] - x).square().mean())

        assert error(values[bits].item()) <= 1.02 * min(error(a) for a in np.linspace(0.2, 15, 150))


def test_all_batches_count():
    model = nn.Sequential(qnn.QuantIdentity())
    small, large = torch.randn(20, 50), 40 * torch.randn(20, 50)
    searchable = make_searchable(model, small, bits=(8, 8))
    searchable.calibrate([small, large])
    together = searchable.clipping_values()["0.act_quant"][8].item()
    searchable.calibrate([torch.cat([small, large])])
    assert together == pytest.approx(searchable.clipping_values()["0.act_quant"][8].item())
    searchable.calibrate([small])
    assert searchable.clipping_values()["0.act_quant"][8] < 0.2 * together


def test_weights_get_the_best_clipping_per_channel():
    model = nn.Sequential(qnn.QuantLinear(200, 3, False, weight_quant=Q.channel_weight))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(3, 200) * torch.tensor([[0.01], [1.0], [50.0]]))
    searchable = make_searchable(model, torch.randn(2, 200))
    searchable.calibrate([torch.randn(2, 200)])
    for bits, clipping in searchable.clipping_values()["0.weight_quant"].items():
        assert clipping.shape == (3, 1)
        relative = clipping.flatten() / torch.tensor([0.01, 1.0, 50.0])
        assert torch.all((relative > 0.2) & (relative < 5)), bits


def test_calibration_lowers_the_error_at_every_width():
    x = images(16)
    model = trained(small_net(), x)
    exact = copy.deepcopy(model)
    for layer in exact:
        for name in ("act_quant", "weight_quant"):
            if hasattr(layer, name):
                getattr(layer, name).disable_quant = True
    target = outputs(exact, x)
    searchable = make_searchable(model, x)

    def errors() -> list[float]:
        found = []
        for bits in (2, 3, 4):
            with searchable.using(searchable.space.uniform(bits)):
                found.append((outputs(searchable, x) - target).square().mean().item())
        return found

    before = errors()
    searchable.calibrate([x])
    assert all(after < 0.7 * first for after, first in zip(errors(), before, strict=True))


def test_activations_are_seen_as_the_layers_before_them_make_them():
    # Not as the layers make them at the width in force: that would calibrate one width on another's errors.
    x = images(16)
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantReLU())
    found = []
    for bits in (1, 8):
        searchable = make_searchable(model, x)
        searchable.set_allocation(searchable.space.uniform(bits))
        searchable.calibrate([x])
        found.append(searchable.clipping_values()["1.act_quant"][4].item())
    assert found[0] == pytest.approx(found[1])


def test_quantizers_that_share_a_scale_are_fitted_together():
    model = Forward(
        lambda m, x: m.a(x) + m.b(30 * x),
        a=qnn.QuantIdentity(Q.signed.let(**PARAMETER_SCALE), return_quant_tensor=True),
        b=qnn.QuantIdentity(Q.signed.let(**PARAMETER_SCALE), return_quant_tensor=True),
    )
    x = torch.randn(40, 50)
    searchable = make_searchable(model.eval(), x)
    searchable.calibrate([x])
    values = searchable.clipping_values()
    for bits in range(1, 9):
        assert values["a.act_quant"][bits] == values["b.act_quant"][bits]
    assert values["a.act_quant"][8] > 50


def test_a_fixed_width_is_the_one_that_is_fitted():
    x = torch.randn(40, 50)
    for rules, low in (((), 1), ((Fix("0.act_quant", 3),), 3)):
        searchable = make_searchable(nn.Sequential(qnn.QuantIdentity()), x, rules=rules)
        searchable.calibrate([x])
        best = mse_optimal_clipping([Samples(values=x.reshape(1, -1), integers=SIGNED)], 3).item()
        off = searchable.clipping_values()["0.act_quant"][3].item() / best - 1
        # A line through all widths cannot meet every optimum; through one width it does.
        assert (abs(off) < 1e-4) == (low == 3)


def test_quantizers_with_brevitas_own_scale_collect_its_statistics():
    x = 5 * torch.randn(40, 50)
    model = nn.Sequential(qnn.QuantIdentity(bq.Int8ActPerTensorFixedPoint))
    searchable = make_searchable(model, x)
    searchable.calibrate([x] * 3)
    step = 5 * 3 / 128  # a little under the largest value over the largest integer
    scale = searchable.model[0].act_quant.scale().item()
    assert 0.5 * step < scale < 2.5 * step and np.log2(scale) == round(np.log2(scale))
    assert torch.equal(outputs(searchable.freeze(), x), outputs(searchable, x))


# --- what is left alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_flags_widths_and_weights_are_kept(training):
    x = images()
    searchable = make_searchable(trained(small_net(), x), x).train(training)
    searchable.model[2].eval()
    searchable.set_allocation(searchable.space.uniform(3))
    flags = [module.training for module in searchable.modules()]
    weights = [p.clone() for p in searchable.weight_parameters()]
    buffers = {n: b.clone() for n, b in searchable.named_buffers() if n.startswith("model.2.")}
    searchable.calibrate([x])
    assert [module.training for module in searchable.modules()] == flags
    assert set(searchable.allocation.values()) == {3}
    for parameter, before in zip(searchable.weight_parameters(), weights, strict=True):
        assert torch.equal(parameter, before) and parameter.grad is None
    for name, before in buffers.items():
        assert torch.equal(searchable.get_buffer(name), before)
    assert all(p.requires_grad and p.grad is None for p in searchable.clipping_parameters())


def test_an_untrained_batchnorm_uses_the_batches():
    # In evaluation mode its statistics would be those that it was made with, mean 0 and variance 1.
    x = 100 * images(16)
    searchable = make_searchable(small_net(), x)
    searchable.calibrate([x] * 4)
    assert searchable.model[2].num_batches_tracked == 4
    assert searchable.clipping_values()["3.act_quant"][8] < 10


def test_a_trained_batchnorm_keeps_its_statistics():
    x = images()
    searchable = make_searchable(trained(small_net(), x), x)
    searchable.calibrate([x] * 4)
    assert searchable.model[2].num_batches_tracked == 2


def test_calibrating_twice_changes_nothing_more():
    x = images()
    searchable = make_searchable(trained(small_net(), x), x)
    searchable.calibrate([x])
    before = copy.deepcopy(searchable.state_dict())
    searchable.calibrate([x])
    for name, value in searchable.state_dict().items():
        torch.testing.assert_close(value, before[name])


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["tensor", "tuple", "list", "mapping_in_a_tuple", "own_forward", "generator"]
)
def test_batches_of_every_form(form):
    x = images()
    model = Forward(lambda m, image: m.net(image), net=trained(small_net(), x))
    searchable = make_searchable(model, x)
    reference = copy.deepcopy(searchable)
    reference.calibrate([x])
    labels = torch.zeros(4)
    forward = None
    if form == "own_forward":

        def forward(batch):
            return searchable(batch["images"])

    batches = {
        "tensor": [x],
        "tuple": [(x, labels)],
        "list": [[x, labels]],
        "mapping_in_a_tuple": [({"image": x}, labels)],
        "own_forward": [{"images": x}],
        "generator": (batch for batch in [x]),
    }[form]
    searchable.calibrate(batches, forward)
    for name, value in reference.state_dict().items():
        assert torch.equal(searchable.state_dict()[name], value)


def test_no_batch_is_refused():
    searchable = make_searchable(small_net(), images()).train()
    with pytest.raises(EmptyDataError, match="at least one batch"):
        searchable.calibrate([])
    assert all(module.training for module in searchable.modules())
    assert torch.isfinite(outputs(searchable, images())).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused_by_quantizer(bad):
    x = images()
    searchable = make_searchable(trained(small_net(), x), x).train()
    before = copy.deepcopy(searchable.clipping_values()["0.act_quant"])
    broken = x.clone()
    broken[0, 0, 0, 0] = bad
    with pytest.raises(CalibrationError, match="0.act_quant: .*NaN or infinite"):
        searchable.calibrate([broken])
    assert all(module.training for module in searchable.modules())
    assert searchable.clipping_values()["0.act_quant"] == before
    assert torch.isfinite(outputs(searchable, x)).all()  # it quantizes again


def test_weights_that_are_not_finite_are_refused_by_quantizer():
    x = images()
    searchable = make_searchable(trained(small_net(), x), x)
    with torch.no_grad():
        searchable.model[6].weight[0, 0] = float("nan")
    with pytest.raises(CalibrationError, match="6.weight_quant"):
        searchable.calibrate([x])


def test_an_error_of_the_model_passes_and_leaves_it_working():
    x = images()
    searchable = make_searchable(trained(small_net(), x), x).train()
    with pytest.raises(RuntimeError):
        searchable.calibrate([x, images()[:, :2]])
    assert all(module.training for module in searchable.modules())
    with searchable.using(searchable.space.uniform(2)):
        assert outputs(searchable.model[:1], x).unique().numel() <= 4


def test_a_quantizer_that_the_batches_do_not_reach_keeps_its_range():
    model = Forward(
        lambda m, x, both=True: m.a(x) + (m.b(x) if both else 0), a=qnn.QuantIdentity(), b=qnn.QuantTanh()
    )
    x = torch.randn(20, 30)
    searchable = make_searchable(model, x)
    before = searchable.clipping_values()["b.act_quant"][4].clone()
    searchable.calibrate([x], lambda batch: searchable(batch, both=False))
    assert searchable.clipping_values()["b.act_quant"][4] == before
