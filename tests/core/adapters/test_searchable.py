from __future__ import annotations

import copy

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters import make_searchable
from gfb_brevitas.errors import AllocationError, ConfigurationError
from gfb_brevitas.quant import Clipping
from gfb_brevitas.rules import Fix, Range
from tests.core.adapters.layer_kinds import (
    KINDS,
    PARAMETER_SCALE,
    Forward,
    Quantizers,
    outputs,
    plain,
    trained,
)

Q = Quantizers()


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def small_net() -> nn.Module:
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 4, 3, weight_quant=Q.channel_weight),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(return_quant_tensor=True),
        nn.Flatten(),
        nn.Dropout(0.2),
        qnn.QuantLinear(4 * 36, 5, True),
    )


NAMES = ("0.act_quant", "1.weight_quant", "3.act_quant", "6.weight_quant")


@pytest.fixture
def searchable():
    x = images()
    made = make_searchable(trained(small_net(), x), x)
    made.calibrate([x])
    return made


# --- making ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_users_model_is_left_alone(training):
    x = images()
    model = trained(small_net(), x).train(training)
    model[2].eval()  # a frozen BatchNorm
    state = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    classes = [type(module) for module in model.modules()]
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}

    made = make_searchable(model, x)
    made.calibrate([x])
    made.set_allocation(made.space.uniform(2))
    plain(made.train()(x)).sum().backward()

    assert [module.training for module in model.modules()] == flags
    assert [type(module) for module in model.modules()] == classes
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_flags_and_buffers_are_kept():
    x = images()
    model = trained(small_net(), x).train()
    model[2].eval()
    made = make_searchable(model, x)
    assert made.model[0].training and not made.model[2].training
    for name, buffer in model.named_buffers():
        if name.startswith("2."):
            assert torch.equal(buffer, made.model.get_buffer(name))


def test_behaves_like_the_users_model():
    x = images()
    made = make_searchable(trained(small_net(), x), x).train()
    assert made.training and made.model[5].training
    assert made.model[2].num_batches_tracked == 2
    made(x)
    assert made.model[2].num_batches_tracked == 3
    assert not made.eval().model[5].training


def test_starts_at_the_widths_of_the_users_model():
    model = nn.Sequential(qnn.QuantIdentity(bit_width=7), qnn.QuantLinear(6, 2, True, weight_bit_width=3))
    made = make_searchable(model, torch.randn(2, 6))
    assert dict(made.allocation) == {"0.act_quant": 7, "1.weight_quant": 3}
    assert [info.initial_bits for info in made.profile] == [7, 3]


def test_starts_inside_the_range_where_the_users_width_is_not():
    model = nn.Sequential(qnn.QuantIdentity(bit_width=8), qnn.QuantLinear(6, 2, True, weight_bit_width=1))
    made = make_searchable(model, torch.randn(2, 6), bits=(2, 6), rules=[Fix("1.*", 5)])
    assert dict(made.allocation) == {"0.act_quant": 6, "1.weight_quant": 5}
    assert [c.name for c in made.space.free] == ["0.act_quant"]


@pytest.mark.parametrize("bits", [(0, 8), (5, 4), (1, 33)])
def test_a_range_that_is_none_is_refused(bits):
    with pytest.raises(ConfigurationError, match=r"bits must be \(smallest, largest\) from 1 to 32"):
        make_searchable(small_net(), images(), bits=bits)


def test_an_unknown_clipping_is_refused():
    with pytest.raises(ConfigurationError, match="cubic"):
        make_searchable(small_net(), images(), clipping="cubic")


@pytest.mark.parametrize("clipping", ["constant", "linear", "per_bit"])
def test_twelve_bits_work_with_every_clipping(clipping):
    x = images()
    made = make_searchable(trained(small_net(), x), x, bits=(1, 12), clipping=clipping)
    made.calibrate([x])
    errors = []
    exact = None
    for bits in (12, 8, 4):
        made.set_allocation(made.space.uniform(bits))
        exact = outputs(made, x) if exact is None else exact
        errors.append((outputs(made, x) - exact).abs().mean().item())
        assert torch.equal(outputs(made.freeze(), x), outputs(made, x))
    assert errors == sorted(errors)


@pytest.mark.filterwarnings("ignore:Keyword arguments are being passed:UserWarning")
def test_one_quantizer_of_many_layers_is_one_coordinate():
    shared = qnn.QuantReLU(return_quant_tensor=True)
    model = nn.Sequential(shared, qnn.QuantLinear(6, 6, True), shared, qnn.QuantReLU(shared.act_quant))
    x = torch.randn(2, 6)
    made = make_searchable(trained(model, x), x)
    assert made.profile.names == ("0.act_quant", "1.weight_quant")
    made.calibrate([x])
    made.set_allocation({"0.act_quant": 2, "1.weight_quant": 4})
    frozen = made.freeze()
    assert frozen[3].act_quant is frozen[0].act_quant
    assert torch.equal(outputs(frozen, x), outputs(made, x))
    assert outputs(made, x).unique().numel() <= 4


# --- widths ---------------------------------------------------------------------------------------


def test_set_allocation_moves_widths_and_nothing_else(searchable):
    # Brevitas' own way to another width makes quantizers anew, which loses what they learned.
    before = {name: (p.data_ptr(), p.clone()) for name, p in searchable.named_parameters()}
    modules = dict(searchable.named_modules())
    x = images()
    first = outputs(searchable, x)
    start = searchable.allocation
    for bits in (1, 5, 8, 2):
        searchable.set_allocation(searchable.space.uniform(bits))
        assert set(searchable.allocation.values()) == {bits}
        for name in NAMES:
            assert searchable.model.get_submodule(name).bit_width() == bits
    assert not torch.equal(outputs(searchable, x), first)
    searchable.set_allocation(start)
    assert torch.equal(outputs(searchable, x), first)
    for name, parameter in searchable.named_parameters():
        pointer, value = before[name]
        assert parameter.data_ptr() == pointer and torch.equal(parameter, value)
    assert dict(searchable.named_modules()) == modules


def test_widths_of_a_hundred_quantizers_change_in_place():
    model = nn.Sequential(
        *(qnn.QuantLinear(4, 4, True) for _ in range(50)), *(qnn.QuantReLU() for _ in range(50))
    )
    made = make_searchable(model.eval(), torch.randn(2, 4))
    assert len(made.profile) == 100
    modules = [id(module) for module in made.modules()]
    generator = np.random.default_rng(0)
    for row in generator.integers(1, 9, (20, 100)):
        made.set_bits(row)
        assert list(made.allocation.values()) == row.tolist()
    assert [id(module) for module in made.modules()] == modules


def test_shared_scales_stay_shared_whatever_the_widths():
    x = torch.randn(2, 6)
    model = Forward(
        lambda m, x: m.a(x) + m.b(0.6 * x),
        a=qnn.QuantIdentity(Q.signed.let(**PARAMETER_SCALE), return_quant_tensor=True),
        b=qnn.QuantIdentity(Q.signed.let(**PARAMETER_SCALE), return_quant_tensor=True),
    )
    made = make_searchable(model.eval(), x)
    for bits in (3, 1, 6):
        made.set_allocation(made.space.uniform(bits))
        outputs(made, x)  # where scales differ, Brevitas refuses to add
        assert made.model.a.act_quant.scale() == made.model.b.act_quant.scale()
    assert len(made.clipping_parameters()) == 2  # intercept and slope of one line


def test_using_restores_the_widths(searchable):
    before = searchable.allocation
    with searchable.using(searchable.space.uniform(2)) as inside:
        assert inside is searchable and set(searchable.allocation.values()) == {2}
        with searchable.using(searchable.space.uniform(1)):
            assert set(searchable.allocation.values()) == {1}
        assert set(searchable.allocation.values()) == {2}
    assert searchable.allocation == before


def test_using_restores_the_widths_after_an_exception(searchable):
    before = searchable.allocation
    with pytest.raises(ZeroDivisionError), searchable.using(searchable.space.uniform(2)):
        raise ZeroDivisionError
    assert searchable.allocation == before


BAD = {
    "missing": ({"0.act_quant": 4}, "it lacks"),
    "unknown": (dict.fromkeys((*NAMES, "7.act_quant"), 4), "the model has no 7.act_quant"),
    "too_small": (dict.fromkeys(NAMES, 1), "must be from 2 to 8; got 1"),
    "too_large": (dict.fromkeys(NAMES, 9), "must be from 2 to 8; got 9"),
    "fraction": (dict.fromkeys(NAMES, 2.5), "whole number"),
    "text": (dict.fromkeys(NAMES, "4"), "whole number"),
    "last_one": ({**dict.fromkeys(NAMES, 4), "6.weight_quant": 9}, "6.weight_quant"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_allocation_changes_nothing(name):
    allocation, message = BAD[name]
    made = make_searchable(small_net(), images(), rules=[Range("*", 2, 8)])
    before = made.allocation
    with pytest.raises(AllocationError, match=message):
        made.set_allocation(allocation)
    assert made.allocation == before
    with pytest.raises(AllocationError, match=message), made.using(allocation):
        pytest.fail("the block must not run")
    assert made.allocation == before


def test_tied_quantizers_take_one_width():
    from gfb_brevitas.rules import Tie

    made = make_searchable(small_net(), images(), rules=[Tie("*.weight_quant")])
    before = made.allocation
    with pytest.raises(AllocationError, match="tied and need one bit width"):
        made.set_allocation({**before, "1.weight_quant": 3, "6.weight_quant": 4})
    assert made.allocation == before


# --- parameters and state -------------------------------------------------------------------------


def test_clipping_and_weight_parameters_are_all_parameters(searchable):
    clipping, weights = searchable.clipping_parameters(), searchable.weight_parameters()
    assert len(clipping) == 2 * len(NAMES)
    assert {id(p) for p in clipping + weights} == {id(p) for p in searchable.parameters()}
    assert len({id(p) for p in clipping + weights}) == len(clipping) + len(weights)


def test_clipping_values_are_those_in_force(searchable):
    values = searchable.clipping_values()
    assert tuple(values) == NAMES and all(tuple(v) == tuple(range(1, 9)) for v in values.values())
    for bits in (1, 4):
        searchable.set_allocation(searchable.space.uniform(bits))
        scale = searchable.model.get_submodule("1.weight_quant").scale()
        threshold = 1 if bits == 1 else 2 ** (bits - 1) - 1
        assert torch.equal(values["1.weight_quant"][bits] / threshold, scale)
        assert values["1.weight_quant"][bits].shape == (4, 1, 1, 1)


@pytest.mark.parametrize(
    "kind", ["conv2d_grouped_per_channel", "residual", "lstm", "attention_with_one_projection"]
)
def test_state_round_trips_and_leaves_quantizers_searchable(kind):
    # Brevitas makes quantizers anew when it loads a state dict; the searchable ones stay.
    x = KINDS[kind].inputs()
    made = make_searchable(trained(KINDS[kind].build(Q), x), x)
    made.calibrate([x])
    made.set_allocation(made.space.uniform(3))
    state, expected = copy.deepcopy(made.state_dict()), outputs(made, x)

    other = make_searchable(trained(KINDS[kind].build(Q), x), x)
    clippings = [module for module in other.modules() if isinstance(module, Clipping)]
    other.set_allocation(other.space.uniform(3))
    assert not torch.equal(outputs(other, x), expected)
    for _ in range(2):
        other.load_state_dict(state)
        assert torch.equal(outputs(other, x), expected)
    assert set(other.allocation.values()) == {3}  # the state does not hold the allocation
    assert [m for m in other.modules() if isinstance(m, Clipping)] == clippings
    for bits in (2, 5):
        made.set_allocation(made.space.uniform(bits))
        other.set_allocation(other.space.uniform(bits))
        assert torch.equal(outputs(other, x), outputs(made, x))
    assert torch.equal(outputs(other.freeze(), x), outputs(other, x))


def test_copies_are_independent(searchable):
    x = images()
    expected, before = outputs(searchable, x), searchable.allocation
    other = copy.deepcopy(searchable)
    assert torch.equal(outputs(other, x), expected)
    other.set_allocation(other.space.uniform(1))
    other.calibrate([3 * x])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    assert searchable.allocation == before
    assert torch.equal(outputs(searchable, x), expected)
    assert torch.equal(outputs(other.freeze(), x), outputs(other, x))
    state = copy.deepcopy(searchable.state_dict())
    other.load_state_dict(state)
    other.set_allocation(before)
    assert torch.equal(outputs(other, x), expected)
    other.set_allocation(other.space.uniform(1))
    assert searchable.allocation == before


def test_double_precision_works():
    x = images().double()
    made = make_searchable(trained(small_net().double(), x), x)
    made.calibrate([x])
    made.set_allocation(made.space.uniform(3))
    assert outputs(made, x).dtype == torch.float64
    assert torch.equal(outputs(made.freeze(), x), outputs(made, x))


def test_a_model_moves_between_devices_and_types_as_a_whole(searchable):
    x = images()
    moved = copy.deepcopy(searchable).to("meta")
    assert all(t.is_meta for t in (*moved.parameters(), *moved.buffers()))
    as_double = searchable.double()
    assert torch.isfinite(outputs(as_double, x.double())).all()


@pytest.mark.cuda
def test_everything_works_on_cuda():
    x = images().cuda()
    made = make_searchable(trained(small_net().cuda(), x), x)
    made.calibrate([(x.cpu(), None)])
    assert all(t.is_cuda for t in (*made.parameters(), *made.buffers()))
    for bits in (8, 3, 1):
        made.set_allocation(made.space.uniform(bits))
        assert torch.equal(outputs(made.freeze(), x), outputs(made, x))
    plain(made.train()(x)).sum().backward()
    assert all(p.grad is not None for p in made.clipping_parameters())
    on_cpu = copy.deepcopy(made).cpu()
    torch.testing.assert_close(outputs(on_cpu, x.cpu()), outputs(made, x).cpu(), rtol=1e-3, atol=0.3)


def test_widths_outside_the_search_are_reported(caplog):
    with caplog.at_level("INFO", logger="gfb_brevitas"):
        made = make_searchable(small_net(), images(), bits=(1, 4), rules=[Fix("0.act_quant", 8)])
    assert set(made.allocation.values()) == {4, 8}
    (record,) = [r for r in caplog.records if r.name.startswith("gfb_brevitas")]
    assert "3 of 4 quantizers start at another width" in record.getMessage()
    caplog.clear()
    with caplog.at_level("INFO", logger="gfb_brevitas"):
        make_searchable(small_net(), images())
    assert not [r for r in caplog.records if r.name.startswith("gfb_brevitas")]
