"""What the quantizers of a model feed: products and their operands, and where quantizers meet."""

from __future__ import annotations

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import nn
from torch.nn import functional as F

from gfb_brevitas.adapters import make_searchable
from gfb_brevitas.errors import ConfigurationError, UntraceableModelError
from gfb_brevitas.profile import FLOAT_BITS, ModelProfile
from gfb_brevitas.rules import Range
from tests.core.adapters.layer_kinds import (
    KINDS,
    PARAMETER_SCALE,
    Forward,
    Quantizers,
    outputs,
    tensor_quant,
)

Q = Quantizers()


def profile_of(model: nn.Module, inputs, **settings) -> ModelProfile:
    return make_searchable(model, inputs, **settings).profile


def only_product(model: nn.Module, inputs, **settings):
    (product,) = profile_of(model, inputs, **settings).products
    return product


# --- multiply-accumulates -------------------------------------------------------------------------

ONE_LAYER = {
    # output positions x output channels x (input channels / groups) x kernel
    "conv1d": (lambda: qnn.QuantConv1d(3, 4, 3), (3, 9), 7 * 4 * 3 * 3),
    "conv2d": (lambda: qnn.QuantConv2d(3, 4, (3, 2), padding=1), (3, 7, 7), 7 * 8 * 4 * 3 * 6),
    "conv2d_strided": (lambda: qnn.QuantConv2d(3, 4, 3, stride=2), (3, 9, 9), 4 * 4 * 4 * 3 * 9),
    "conv2d_grouped": (lambda: qnn.QuantConv2d(8, 12, 3, groups=4), (8, 7, 7), 5 * 5 * 12 * 2 * 9),
    "conv2d_depthwise": (lambda: qnn.QuantConv2d(8, 8, 3, groups=8), (8, 7, 7), 5 * 5 * 8 * 9),
    "conv2d_dilated": (lambda: qnn.QuantConv2d(2, 3, 3, dilation=2), (2, 7, 7), 3 * 3 * 3 * 2 * 9),
    "conv3d": (lambda: qnn.QuantConv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8),
    # input positions x input channels x (output channels / groups) x kernel
    "conv_transpose1d": (lambda: qnn.QuantConvTranspose1d(3, 4, 3, stride=2), (3, 9), 9 * 3 * 4 * 3),
    "conv_transpose2d": (lambda: qnn.QuantConvTranspose2d(3, 4, 2, stride=2), (3, 5, 5), 25 * 3 * 4 * 4),
    "conv_transpose2d_grouped": (
        lambda: qnn.QuantConvTranspose2d(4, 6, 3, groups=2),
        (4, 5, 5),
        25 * 4 * 3 * 9,
    ),
    "linear": (lambda: qnn.QuantLinear(6, 5, True), (6,), 30),
    "linear_without_bias": (lambda: qnn.QuantLinear(6, 5, False), (6,), 30),
    "linear_on_a_sequence": (lambda: qnn.QuantLinear(6, 5, True), (7, 6), 7 * 30),
    "linear_without_bias_on_images": (lambda: qnn.QuantLinear(6, 5, False), (2, 3, 6), 6 * 30),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ONE_LAYER)
def test_macs_of_one_layer_per_sample(name, batch):
    build, shape, macs = ONE_LAYER[name]
    model = nn.Sequential(qnn.QuantIdentity(), build())
    profile = profile_of(model, torch.randn(batch, *shape))
    (product,) = profile.products
    assert (product.layer, product.macs) == ("1", macs)
    assert product.left.quantizers == ("0.act_quant",)
    assert product.right.quantizers == ("1.weight_quant",)
    activation, weight = profile
    assert (activation.macs, weight.macs) == (macs, macs)
    assert (activation.feeds, weight.feeds) == (("1",), ("1",))
    assert weight.elements == weight.largest_call_elements == model[1].weight.numel()
    assert activation.elements == activation.largest_call_elements == torch.Size(shape).numel()


def test_macs_of_attention():
    embed, heads, length = 8, 2, 5
    for packed, projections in (
        ("attention_with_one_projection", 1),
        ("attention_with_three_projections", 3),
    ):
        kind = KINDS[packed]
        profile = profile_of(kind.build(Q), torch.randn(2, length, embed))
        by_layer: dict[str, int] = {}
        for product in profile.products:
            by_layer[product.layer] = by_layer.get(product.layer, 0) + product.macs
        inside = {name: macs for name, macs in by_layer.items() if "proj" in name}
        assert len(inside) == projections + 1
        assert sum(inside.values()) == 4 * length * embed * embed  # q, k, v and the output
        # Queries times keys, and weights times values: heads x length x length x (embed / heads).
        assert by_layer["attention"] == 2 * heads * length * length * (embed // heads)
        between = {
            (p.left.quantizers, p.right.quantizers) for p in profile.products if p.layer == "attention"
        }
        assert between == {
            (("attention.q_scaled_quant.act_quant",), ("attention.k_transposed_quant.act_quant",)),
            (("attention.attn_output_weights_quant.act_quant",), ("attention.v_quant.act_quant",)),
        }


def test_macs_of_a_recurrent_layer():
    steps, inputs, hidden = 4, 6, 5
    profile = profile_of(KINDS["lstm"].build(Q), torch.randn(3, steps, inputs))
    (out,) = [p for p in profile.products if p.layer == "out"]
    recurrent = [p for p in profile.products if p.layer != "out"]
    assert out.macs == steps * hidden * 3
    assert sum(p.macs for p in recurrent) == 4 * steps * (inputs + hidden) * hidden
    weights = {name for p in recurrent for name in p.right.quantizers}
    assert len(weights) == 4 and all(name.endswith("weight_quant") for name in weights)
    first_state = [p for p in recurrent if not p.left.quantizers]
    assert sum(p.macs for p in first_state) <= 4 * hidden * hidden  # the state before the first step


# --- operands -------------------------------------------------------------------------------------


def test_marks_pass_through_operations_that_only_move_values():
    def forward(m, x):
        x = F.max_pool2d(m.act(x), 2)
        x = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous().transpose(1, 3)
        x = torch.flip(F.relu(x), (2,)).repeat(1, 1, 1, 2)[:, :, :4]
        return m.fc(F.dropout(x.flatten(1), 0.5, m.training))

    model = Forward(forward, act=qnn.QuantIdentity(Q.signed), fc=qnn.QuantLinear(3 * 4 * 12, 2, True))
    assert only_product(model, torch.randn(2, 3, 8, 8)).left.quantizers == ("act.act_quant",)


def test_marks_pass_through_operations_on_quant_tensors():
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(48, 2, True),
    )
    assert only_product(model, torch.randn(2, 3, 8, 8)).left.quantizers == ("0.act_quant",)


def test_computing_with_values_drops_their_width():
    model = Forward(
        lambda m, x: m.fc(m.act(x) * 2 + 1), act=qnn.QuantIdentity(), fc=qnn.QuantLinear(6, 2, True)
    )
    left = only_product(model, torch.randn(2, 6)).left
    assert left.quantizers == () and left.constant_bits == FLOAT_BITS


def test_a_layer_without_input_quantizer_reads_float():
    left = only_product(nn.Sequential(qnn.QuantLinear(6, 2, True)), torch.randn(2, 6)).left
    assert left.quantizers == () and left.constant_bits == FLOAT_BITS


def test_an_unsearched_quantizer_gives_its_constant_width():
    from brevitas.quant import SignedBinaryActPerTensorConst

    model = nn.Sequential(qnn.QuantIdentity(SignedBinaryActPerTensorConst), qnn.QuantLinear(6, 2, True))
    left = only_product(model, torch.randn(2, 6)).left
    assert left.quantizers == () and left.constant_bits == 1


def test_a_concatenation_comes_from_all_its_parts():
    model = Forward(
        lambda m, x: m.fc(torch.cat([m.a(x), m.b(x)], 1)),
        a=qnn.QuantIdentity(),
        b=qnn.QuantReLU(),
        fc=qnn.QuantLinear(12, 2, True),
    )
    assert only_product(model, torch.randn(2, 6)).left.quantizers == ("a.act_quant", "b.act_quant")


def test_a_concatenation_with_a_float_part_is_float():
    model = Forward(
        lambda m, x: m.fc(torch.cat([m.a(x), x], 1)), a=qnn.QuantIdentity(), fc=qnn.QuantLinear(12, 2, True)
    )
    left = only_product(model, torch.randn(2, 6)).left
    assert left.quantizers == () and left.constant_bits == FLOAT_BITS


def test_an_embedding_feeds_what_reads_it():
    model = Forward(
        lambda m, x: m.fc(m.embedding(x)), embedding=qnn.QuantEmbedding(20, 8), fc=qnn.QuantLinear(8, 3, True)
    )
    product = only_product(model, torch.randint(0, 20, (2, 7)))
    assert product.left.quantizers == ("embedding.weight_quant",) and product.macs == 7 * 8 * 3


def test_a_layer_that_runs_twice_is_counted_twice():
    model = Forward(
        lambda m, x: m.fc(m.act(m.fc(m.act(x)))), act=qnn.QuantIdentity(), fc=qnn.QuantLinear(6, 6, False)
    )
    profile = profile_of(model, torch.randn(2, 6))
    (product,) = profile.products
    assert product.macs == 2 * 36
    activation, weight = profile
    assert activation.elements == 2 * 6 and activation.largest_call_elements == 6
    assert weight.elements == 36


def test_a_weight_that_feeds_several_layers_is_counted_once():
    first = qnn.QuantLinear(6, 6, False)
    second = qnn.QuantLinear(6, 6, False, weight_quant=first.weight_quant)
    second.weight = first.weight
    profile = profile_of(
        nn.Sequential(qnn.QuantIdentity(), first, qnn.QuantIdentity(), second), torch.ones(2, 6)
    )
    (weight,) = [info for info in profile if info.kind == "weight"]
    assert weight.elements == 36 and weight.macs == 72 and weight.feeds == ("1", "3")


def test_a_quantizer_of_two_weights_counts_both():
    first = qnn.QuantLinear(6, 6, False)
    second = qnn.QuantLinear(6, 4, False, weight_quant=first.weight_quant)
    profile = profile_of(nn.Sequential(first, second), torch.ones(2, 6))
    (weight,) = profile
    assert (weight.elements, weight.largest_call_elements, weight.macs) == (60, 36, 60)


def test_functional_products_have_operands_too():
    model = Forward(
        lambda m, x: m.a(x) @ m.b(x).transpose(1, 2), a=qnn.QuantIdentity(), b=qnn.QuantIdentity()
    )
    product = only_product(model, torch.randn(2, 3, 4))
    assert product.macs == 3 * 3 * 4
    assert (product.left.quantizers, product.right.quantizers) == (("a.act_quant",), ("b.act_quant",))


def test_quantizers_come_in_the_order_of_the_forward_pass():
    model = Forward(
        lambda m, x: m.last(m.first(x)),
        last=qnn.QuantReLU(),
        unused=qnn.QuantTanh(),
        first=qnn.QuantIdentity(),
    )
    assert profile_of(model, torch.randn(2, 6)).names == (
        "first.act_quant",
        "last.act_quant",
        "unused.act_quant",
    )


def test_a_quantizer_that_is_never_reached_keeps_its_width():
    model = Forward(lambda m, x: m.used(x), used=qnn.QuantReLU(), unused=qnn.QuantTanh(bit_width=5))
    searchable = make_searchable(model, torch.randn(2, 6), bits=(1, 4))
    used, unused = searchable.profile
    assert (used.min_bits, used.max_bits) == (1, 4)
    assert (unused.min_bits, unused.max_bits, unused.elements, unused.macs) == (5, 5, 0, 0)
    assert [c.name for c in searchable.space.free] == ["used.act_quant"]
    assert searchable.space.smallest()["unused.act_quant"] == 5
    searchable.calibrate([torch.randn(2, 6)])
    assert searchable.freeze().unused.act_quant.bit_width() == 5


# --- where quantizers meet ------------------------------------------------------------------------


def branches(combine, **settings) -> nn.Module:
    """Three quantizers with equal scales of their own, put together by ``combine``."""

    def identity() -> nn.Module:
        return qnn.QuantIdentity(Q.signed.let(**PARAMETER_SCALE), return_quant_tensor=True, **settings)

    return Forward(
        lambda m, x: m.out(combine(m.a(x), m.b(0.6 * x), m.c(0.3 * x))),
        a=identity(),
        b=identity(),
        c=identity(),
        out=qnn.QuantReLU(),
    )


MEETINGS = {
    "sum": (lambda a, b, c: a + b, "ab"),
    "sum_of_three": (lambda a, b, c: a + b + c, "abc"),
    "sum_in_brackets": (lambda a, b, c: a + (b + c), "abc"),
    "difference": (lambda a, b, c: a - b, "ab"),
    "behind_a_pool": (lambda a, b, c: F.max_pool1d(a, 2) + F.max_pool1d(c, 2), "ac"),
    "sum_behind_a_reshape": (lambda a, b, c: (a + b).flatten(1) + c.flatten(1), "abc"),
    "concatenation": (lambda a, b, c: torch.cat([a, c], dim=1), "ac"),
    "concatenation_and_sum": (lambda a, b, c: torch.cat([a, a], dim=1) + torch.cat([b, c], dim=1), "abc"),
    "none": (lambda a, b, c: a * b, ""),
    "none_as_tensors": (lambda a, b, c: a.value + b.value, ""),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_quantizers_that_meet_are_tied_and_share_a_scale(name):
    combine, tied = MEETINGS[name]
    x = torch.randn(2, 3, 8)
    model = branches(combine).eval()
    searchable = make_searchable(model, x)
    assert torch.equal(outputs(searchable, x), outputs(model, x))
    groups = {frozenset(c.quantizers) for c in searchable.space.coordinates if len(c.quantizers) > 1}
    assert groups == ({frozenset(f"{letter}.act_quant" for letter in tied)} if tied else set())

    searchable.calibrate([x])
    for bits in (8, 3, 2):
        searchable.set_allocation(searchable.space.uniform(bits))
        frozen = searchable.freeze()
        # Brevitas itself checks in evaluation mode that scales and widths are the same.
        assert torch.equal(outputs(frozen, x), outputs(searchable, x))
    scales = {id(tensor_quant(frozen, f"{letter}.act_quant").scaling_impl) for letter in tied}
    assert len(scales) <= 1


@pytest.mark.parametrize("narrow", [False, True], ids=["full_range", "narrow_range"])
@pytest.mark.parametrize("first", ["signed", "unsigned"])
def test_branches_of_different_signs_share_a_scale(first, narrow):
    def settings(bound: float) -> dict[str, object]:
        return {"scaling_impl_type": "parameter", "scaling_init": bound, "narrow_range": narrow}

    # Both start with a step of 1 / 100.
    signed = qnn.QuantIdentity(Q.signed.let(**settings((128 - narrow) / 100)), return_quant_tensor=True)
    unsigned = qnn.QuantReLU(Q.unsigned.let(**settings((255 - narrow) / 100)), return_quant_tensor=True)
    a, b = (signed, unsigned) if first == "signed" else (unsigned, signed)
    x, model = torch.randn(2, 30), Forward(lambda m, x: (m.a(x) + m.b(x)).value, a=a, b=b).eval()
    searchable = make_searchable(model, x)
    assert len(searchable.space) == 1
    torch.testing.assert_close(outputs(searchable, x), outputs(model, x))
    searchable.calibrate([x])
    for bits in (8, 4, 2, 1):
        searchable.set_allocation(searchable.space.uniform(bits))
        computed = outputs(searchable, x)
        assert torch.isfinite(computed).all() and computed.unique().numel() > 1
        assert torch.equal(outputs(searchable.freeze(), x), computed)


def test_a_learned_and_a_fixed_scale_that_meet_are_refused():
    constant = Q.signed.let(scaling_impl_type="const", scaling_init=1.0)
    model = Forward(
        lambda m, x: m.a(x) + m.b(x),
        a=qnn.QuantIdentity(Q.signed.let(**PARAMETER_SCALE), return_quant_tensor=True),
        b=qnn.QuantIdentity(constant, return_quant_tensor=True),
    )
    with pytest.raises(ConfigurationError, match=r"'a.act_quant' and 'b.act_quant' meet"):
        make_searchable(model.eval(), torch.randn(2, 6))


def test_fixed_scales_that_meet_are_tied():
    constant = Q.signed.let(scaling_impl_type="const", scaling_init=1.0)
    model = Forward(
        lambda m, x: (m.a(x) + m.b(x)).value,
        a=qnn.QuantIdentity(constant, return_quant_tensor=True),
        b=qnn.QuantIdentity(constant, return_quant_tensor=True),
    )
    x = torch.randn(2, 6)
    searchable = make_searchable(model.eval(), x)
    assert len(searchable.space) == 1
    searchable.set_allocation(searchable.space.uniform(3))
    assert torch.equal(outputs(searchable.freeze(), x), outputs(searchable, x))


def test_quant_tensors_are_as_before_after_a_trace():
    before = dict(vars(IntQuantTensor))
    make_searchable(branches(MEETINGS["sum_of_three"][0]), torch.randn(2, 3, 8)).calibrate(
        [torch.randn(2, 3, 8)]
    )
    assert dict(vars(IntQuantTensor)) == before
    with pytest.raises(UntraceableModelError):
        make_searchable(branches(lambda a, b, c: a @ c @ b), torch.randn(2, 3, 8))
    assert dict(vars(IntQuantTensor)) == before


# --- inputs ---------------------------------------------------------------------------------------


def two_inputs() -> nn.Module:
    return Forward(
        lambda m, left, right: m.fc(m.act(left + right)),
        act=qnn.QuantIdentity(),
        fc=qnn.QuantLinear(6, 2, True),
    )


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.randn(4, 6), torch.randn(4, 6)),
        {"right": torch.randn(4, 6), "left": torch.randn(4, 6)},
    ],
    ids=["tuple", "mapping"],
)
def test_example_inputs_may_be_positional_or_by_name(inputs):
    profile = profile_of(two_inputs(), inputs)
    assert profile.products[0].macs == 12
    assert profile.quantizers[0].elements == 6


def test_the_batch_size_is_that_of_the_first_tensor_or_as_given():
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 2, True))
    nodes = torch.randn(10, 6)  # one graph of ten nodes
    assert only_product(model, nodes).macs == 12
    assert only_product(model, nodes, batch_size=1).macs == 120
    assert profile_of(model, nodes, batch_size=1).quantizers[0].elements == 60
    with pytest.raises(ConfigurationError, match="batch_size must be at least 1; got 0"):
        profile_of(model, nodes, batch_size=0)


@pytest.mark.parametrize("inputs", [torch.empty(0, 6), (), {}, (3, "text"), torch.tensor(1.0)])
def test_inputs_without_a_sample_are_refused(inputs):
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 2, True))
    with pytest.raises(UntraceableModelError, match="at least one sample"):
        make_searchable(model, inputs)


def test_a_model_that_fails_on_its_inputs_says_how():
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 2, True)).train()
    with pytest.raises(UntraceableModelError, match="shapes cannot be multiplied") as caught:
        make_searchable(model, torch.randn(2, 7))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert all(module.training for module in model.modules())


def test_a_model_that_wants_other_arguments_says_how():
    with pytest.raises(UntraceableModelError, match=r"TypeError.*right[\s\S]*tuple of positional"):
        make_searchable(two_inputs(), torch.randn(2, 6))


def test_a_range_does_not_search_what_is_never_reached():
    model = Forward(lambda m, x: m.used(x), used=qnn.QuantReLU(), unused=qnn.QuantTanh(bit_width=5))
    searchable = make_searchable(model, torch.randn(2, 6), rules=[Range("*", 2, 4)])
    assert [info.reached for info in searchable.profile] == [True, False]
    assert dict(searchable.space.largest()) == {"used.act_quant": 4, "unused.act_quant": 5}


@pytest.mark.parametrize("example", [torch.zeros, torch.ones, torch.rand], ids=["zeros", "ones", "noise"])
def test_operands_do_not_depend_on_the_values_of_the_example(example) -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = qnn.QuantIdentity()
            self.last = qnn.QuantLinear(16, 4, bias=False)

        def forward(self, x):
            x = self.quant(x)
            return self.last(torch.cat([x, 0.3 * x], 1))

    assert only_product(Joined(), example(2, 8)).left.quantizers == ()
