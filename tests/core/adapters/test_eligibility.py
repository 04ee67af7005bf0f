"""Which quantizers are searched with learned clipping, which with Brevitas' scale, and which not at all."""

from __future__ import annotations

import brevitas.nn as qnn
import brevitas.quant as bq
import numpy as np
import pytest
import torch
from torch import nn

from gfb_brevitas.adapters import apply_allocation, make_searchable
from gfb_brevitas.adapters.eligibility import Refusal, classify, kind_of, named_proxies
from gfb_brevitas.errors import AllocationError, NothingSearchableError
from tests.core.adapters.layer_kinds import (
    PARAMETER_SCALE,
    classes_of_ours,
    outputs,
    plain,
    tensor_quant,
    trained,
)

pytestmark = [
    # Brevitas builds a tensor out of another one there.
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    # Quant tensors become tensors behind weights with a zero point.
    pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator:UserWarning"),
    # Brevitas calls state_dict with positional arguments in its zero points.
    pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning"),
]

IMAGE = (2, 4, 8, 8)


def activation(**settings) -> nn.Module:
    return qnn.QuantIdentity(return_quant_tensor=True, **settings)


def conv(**settings) -> nn.Module:
    return nn.Sequential(activation(**PARAMETER_SCALE), qnn.QuantConv2d(4, 4, 3, **settings))


LEARNED = {
    "statistics": lambda: nn.Sequential(activation(), qnn.QuantConv2d(4, 4, 3)),
    "learned_scale_in_log_domain": lambda: conv(weight_restrict_scaling_type="log_fp"),
    "learned_width": lambda: nn.Sequential(
        activation(bit_width_impl_type="parameter"),
        qnn.QuantConv2d(4, 4, 3, weight_bit_width_impl_type="parameter"),
    ),
    "affine_statistics": lambda: conv(weight_scaling_impl_type="affine_stats"),
    "mse": lambda: conv(weight_quant=bq.Int8WeightPerTensorFloatMSE),
    "batch_statistics": lambda: activation(act_quant=bq.Int8ActPerTensorFloatBatchQuant2d),
}

NATIVE_ACTIVATIONS = {
    "power_of_two": {"act_quant": bq.Int8ActPerTensorFixedPoint},
    "zero_point": {"act_quant": bq.ShiftedUint8ActPerTensorFloat},
    "constant": {"scaling_impl_type": "const", "scaling_init": 2.0},
    "floor": {"float_to_int_impl_type": "floor"},
    "two_bit_constant_called_ternary": {"act_quant": bq.SignedTernaryActPerTensorConst},
}

NATIVE_WEIGHTS = {
    "power_of_two": {"weight_quant": bq.Int8WeightPerTensorFixedPoint},
    "zero_point": {"weight_quant": bq.ShiftedUint8WeightPerTensorFloat},
    "zero_point_per_channel": {"weight_quant": bq.ShiftedUint8WeightPerChannelFloat},
    "constant": {"weight_scaling_impl_type": "const", "weight_scaling_init": 0.1},
    "floor": {"weight_float_to_int_impl_type": "floor"},
    "accumulator_aware": {"weight_quant": bq.Int8AccumulatorAwareWeightQuant},
    "weight_norm": {"weight_quant": bq.Int8WeightNormL2PerChannelFixedPoint},
}

REFUSED = {
    "minifloat_activation": (lambda: activation(act_quant=bq.Fp8e4m3ActPerTensorFloat), "minifloat"),
    "minifloat_weight": (lambda: conv(weight_quant=bq.Fp8e4m3WeightPerTensorFloat), "minifloat"),
    "binary_activation": (lambda: activation(act_quant=bq.SignedBinaryActPerTensorConst), "binary"),
    "binary_weight": (lambda: conv(weight_quant=bq.SignedBinaryWeightPerTensorConst), "binary"),
    "ternary_activation": (
        lambda: activation(quant_type="ternary", scaling_impl_type="const", threshold=0.5, scaling_init=1.0),
        "ternary",
    ),
    "ternary_weight": (
        lambda: conv(
            weight_quant_type="ternary",
            weight_scaling_impl_type="const",
            weight_threshold=0.5,
            weight_scaling_init=0.1,
        ),
        "ternary",
    ),
    "group_wise_activation": (
        lambda: nn.Sequential(nn.Flatten(), qnn.QuantLinear(256, 2, True, input_quant=bq.MXInt8Act)),
        "group-wise",
    ),
    "group_wise_weight": (
        lambda: nn.Sequential(nn.Flatten(), qnn.QuantLinear(256, 2, True, weight_quant=bq.MXInt8Weight)),
        "group-wise",
    ),
    "bias": (lambda: conv(bias_quant=bq.Int32Bias), "bias quantizers keep their width"),
    "truncation": (
        lambda: nn.Sequential(activation(), qnn.TruncAvgPool2d(2, float_to_int_impl_type="floor")),
        "truncation quantizers keep their width",
    ),
}


def verdicts(model: nn.Module) -> dict[str, object]:
    return {name: classify(proxy) for name, proxy in named_proxies(model)}


@pytest.mark.parametrize("name", LEARNED)
def test_plain_integer_quantizers_get_learned_clipping(name):
    model = trained(LEARNED[name](), torch.randn(IMAGE))
    assert set(verdicts(model).values()) == {"learned"}
    x = torch.randn(IMAGE)
    assert torch.allclose(outputs(make_searchable(model, x), x), outputs(model, x), atol=1e-6)


def test_a_delay_of_quantization_ends():
    # Until it is over a quantizer lets its input through: every width would look equally good.
    x = torch.randn(IMAGE)
    model = activation(quant_delay_steps=1000)
    assert torch.equal(outputs(model, x), x)
    searchable = make_searchable(model, x)
    searchable.calibrate([x])
    searchable.set_allocation(searchable.space.uniform(2))
    assert outputs(searchable, x).unique().numel() <= 4
    assert torch.equal(outputs(searchable.freeze(), x), outputs(searchable, x))


@pytest.mark.parametrize("name", NATIVE_ACTIVATIONS)
def test_activations_with_a_special_scheme_keep_it_at_every_width(name):
    x = torch.randn(IMAGE)
    model = trained(activation(**NATIVE_ACTIVATIONS[name]), x, steps=5)
    assert list(verdicts(model).values()) == ["native"]
    check_native(model, lambda bits: activation(**{**NATIVE_ACTIVATIONS[name], "bit_width": bits}), x)


@pytest.mark.parametrize("name", NATIVE_WEIGHTS)
def test_weights_with_a_special_scheme_keep_it_at_every_width(name):
    x = torch.randn(IMAGE)
    model = trained(conv(**NATIVE_WEIGHTS[name]), x, steps=5)
    assert verdicts(model)["1.weight_quant"] == "native"
    check_native(model, lambda bits: conv(**{**NATIVE_WEIGHTS[name], "weight_bit_width": bits}), x)


def check_native(model, build, x):
    """Equality with models that Brevitas builds at that width; freezing, its state, and training."""
    searchable = make_searchable(model, x, bits=(1, 8), clipping="constant")
    assert torch.equal(outputs(searchable, x), outputs(model, x))
    natives = [info for info in searchable.profile if info.scaling == "native"]
    assert [info.min_bits for info in natives] == [2]
    (native,) = natives
    state = {k: v for k, v in searchable.model.state_dict().items() if "clipping" not in k}
    for bits in range(2, 9):
        allocation = {**searchable.allocation, native.name: bits}
        searchable.set_allocation(allocation)
        computed = outputs(searchable, x)
        built = trained(build(bits), x)
        built.load_state_dict(state, strict=False)
        for name, values in searchable.clipping_values().items():  # of the quantizer in front
            tensor_quant(built, name).scaling_impl.value.data.copy_(values[8])
        assert torch.equal(computed, outputs(built, x))

        frozen = searchable.freeze()
        assert classes_of_ours(frozen) == []
        assert torch.equal(outputs(frozen, x), computed)
        fresh = apply_allocation(build(8), allocation)
        fresh.load_state_dict(frozen.state_dict())
        assert torch.equal(outputs(fresh, x), computed)
    assert plain(frozen.train()(x.requires_grad_())).requires_grad

    with pytest.raises(AllocationError, match=rf"{native.name}.*from 2 to 8; got 1"):
        searchable.set_allocation({**searchable.allocation, native.name: 1})
    with pytest.raises(AllocationError, match="takes no fewer than 2 bits; the allocation says 1"):
        apply_allocation(model, {**searchable.allocation, native.name: 1})


@pytest.mark.parametrize("name", REFUSED)
def test_refused_quantizers_have_a_reason(name):
    build, reason = REFUSED[name]
    model = trained(build(), torch.randn(IMAGE))
    refusals = [v for v in verdicts(model).values() if isinstance(v, Refusal)]
    assert len(refusals) == 1 and reason in refusals[0]


def test_a_clamp_quantizer_is_refused():
    # No layer of Brevitas has one since 0.12; third-party layers may.
    from brevitas.proxy.runtime_quant import ClampQuantProxyFromInjector

    proxy = ClampQuantProxyFromInjector.__new__(ClampQuantProxyFromInjector)
    assert kind_of(proxy) == "clamp" and isinstance(classify(proxy), Refusal)


@pytest.mark.parametrize(
    "name", ["minifloat_weight", "binary_weight", "ternary_weight", "bias", "truncation"]
)
def test_refused_quantizers_stay_and_are_listed(name):
    x = torch.randn(IMAGE)
    build, reason = REFUSED[name]
    model = trained(build(), x)
    searchable = make_searchable(model, x)
    searchable.calibrate([x])
    (refused,) = searchable.profile.refused
    assert reason in refused.reason and refused.name.startswith("1.")
    for bits in (8, 3, 2):
        searchable.set_allocation(searchable.space.uniform(bits))
        frozen = searchable.freeze()
        assert torch.equal(outputs(frozen, x), outputs(searchable, x))
        fresh = apply_allocation(build(), searchable.allocation)
        fresh.load_state_dict(frozen.state_dict())
        assert torch.equal(outputs(fresh, x), outputs(searchable, x))


@pytest.mark.parametrize(
    "name, bits", [("binary_weight", 1), ("ternary_weight", 2), ("minifloat_weight", 8), ("bias", 0)]
)
def test_weights_that_are_not_searched_count_with_their_width(name, bits):
    searchable = make_searchable(REFUSED[name][0](), torch.randn(IMAGE))
    assert searchable.profile.constant_weight_bits == bits * 4 * 4 * 3 * 3


def test_a_model_with_nothing_to_search_says_why_quantizer_by_quantizer():
    model = nn.Sequential(
        qnn.QuantIdentity(bq.SignedBinaryActPerTensorConst),
        qnn.QuantConv2d(4, 4, 3, weight_quant=bq.Fp8e4m3WeightPerTensorFloat),
    )
    with pytest.raises(NothingSearchableError) as caught:
        make_searchable(model, torch.randn(IMAGE))
    assert "0.act_quant: binary" in str(caught.value) and "1.weight_quant: float" in str(caught.value)


def test_a_float_model_is_pointed_to_quantize_float_model():
    with pytest.raises(NothingSearchableError, match="quantize_float_model"):
        make_searchable(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), torch.randn(IMAGE))


def test_disabled_quantizers_are_left_alone():
    x = torch.randn(IMAGE)
    model = trained(nn.Sequential(qnn.QuantIdentity(), qnn.QuantReLU(), qnn.QuantConv2d(4, 2, 3)), x)
    model[1].act_quant.disable_quant = True
    searchable = make_searchable(model, x)
    assert searchable.profile.names == ("0.act_quant", "2.weight_quant")
    searchable.set_allocation(searchable.space.uniform(3))
    assert torch.equal(outputs(searchable.freeze(), x), outputs(searchable, x))


def test_dynamic_scales_move_with_the_width():
    from brevitas_examples.common.generative.quantizers import Int8DynamicActPerTensorFloat

    x = torch.randn(IMAGE)
    searchable = make_searchable(activation(act_quant=Int8DynamicActPerTensorFloat), x)
    for bits in range(2, 9):
        searchable.set_allocation(searchable.space.uniform(bits))
        native = activation(act_quant=Int8DynamicActPerTensorFloat, bit_width=bits)
        assert torch.equal(outputs(searchable, x), outputs(native, x))
        assert torch.equal(outputs(searchable.freeze(), x), outputs(native, x))
        assert len(np.unique(outputs(native, x).numpy())) <= 2**bits
