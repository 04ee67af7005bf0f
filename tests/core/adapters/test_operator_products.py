"""Multiply-accumulates of whatever multiplies, by hand, and the same for fused and written-out networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import brevitas.nn as qnn
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfb_brevitas.adapters import make_searchable
from gfb_brevitas.adapters.operator_products import multiplications
from gfb_brevitas.profile import ModelProfile, Product
from tests.core.adapters.layer_kinds import Forward

SAMPLES, LENGTH, WIDTH = 2, 5, 8
A, B, FLOAT = "a", "b", 32.0


def profile_of(forward: Callable[..., Tensor], samples: int = SAMPLES, **layers: nn.Module) -> ModelProfile:
    torch.manual_seed(0)
    model = Forward(forward, a=qnn.QuantIdentity(), b=qnn.QuantIdentity(), **layers)
    return make_searchable(model, torch.randn(samples, LENGTH, WIDTH)).profile


def side(product: Product, which: str) -> str | float:
    operand = getattr(product, which)
    names = [name.partition(".")[0] for name in operand.quantizers]
    return "+".join(names) if names else operand.constant_bits


def counted(profile: ModelProfile) -> list[tuple[int, str | float, str | float]]:
    assert not profile.unknown_operators
    return sorted(
        ((p.macs, side(p, "left"), side(p, "right")) for p in profile.products), key=lambda row: str(row)
    )


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


ROWS = LENGTH * WIDTH  # values of a sample
SQUARE = LENGTH * LENGTH * WIDTH  # of a product of two samples with each other
WEIGHT = torch.ones(WIDTH, WIDTH)

# A call, and what it multiplies per sample: multiply-accumulates, left operand, right operand.
CALLS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, str | float, str | float]]]] = {
    "mm": (lambda m, x: m.a(x).flatten(0, 1) @ WEIGHT, [(ROWS * WIDTH, A, FLOAT)]),
    "mm_out": (
        lambda m, x: torch.mm(m.a(x).flatten(0, 1), WEIGHT, out=torch.empty(len(x) * LENGTH, WIDTH)),
        [(ROWS * WIDTH, A, FLOAT)],
    ),
    "addmm_in_place": (
        lambda m, x: torch.zeros(len(x) * LENGTH, WIDTH).addmm_(m.a(x).flatten(0, 1), WEIGHT),
        [(ROWS * WIDTH, A, FLOAT)],
    ),
    "mv": (lambda m, x: m.a(x).flatten(0, 1).mv(WEIGHT[0]), [(ROWS, A, FLOAT)]),
    "addmv": (
        lambda m, x: torch.addmv(torch.zeros(len(x) * LENGTH), m.a(x).flatten(0, 1), WEIGHT[0]),
        [(ROWS, A, FLOAT)],
    ),
    "dot": (lambda m, x: torch.dot(m.a(x).flatten(), m.b(x).flatten()), [(ROWS, A, B)]),
    "vdot": (lambda m, x: torch.vdot(m.a(x).flatten(), m.b(x).flatten()), [(ROWS, A, B)]),
    "bmm": (lambda m, x: torch.bmm(m.a(x), m.b(x).mT), [(SQUARE, A, B)]),
    "baddbmm": (
        lambda m, x: torch.baddbmm(torch.zeros(len(x), LENGTH, LENGTH), m.a(x), m.b(x).mT),
        [(SQUARE, A, B)],
    ),
    "addbmm": (lambda m, x: torch.addbmm(torch.zeros(LENGTH, LENGTH), m.a(x), m.b(x).mT), [(SQUARE, A, B)]),
    "einsum": (lambda m, x: torch.einsum("bld,bmd->blm", m.a(x), m.b(x)), [(SQUARE, A, B)]),
    "tensordot": (lambda m, x: torch.tensordot(m.a(x), WEIGHT, 1), [(ROWS * WIDTH, A, FLOAT)]),
    "inner": (lambda m, x: torch.inner(m.a(x), WEIGHT), [(ROWS * WIDTH, A, FLOAT)]),
    "sparse": (
        lambda m, x: torch.sparse.mm(torch.eye(WIDTH).to_sparse(), m.a(x).flatten(0, 1).T),
        [(ROWS, FLOAT, A)],
    ),
    "bytes": (
        lambda m, x: torch._int_mm(m.a(x).flatten(0, 1).repeat(4, 1).to(torch.int8), WEIGHT.to(torch.int8)),
        [(4 * ROWS * WIDTH, 8, 8)],
    ),
    "complex": (
        lambda m, x: (torch.complex(m.a(x), m.b(x)) @ torch.complex(WEIGHT, WEIGHT)).real,
        [(4 * ROWS * WIDTH, FLOAT, FLOAT)],
    ),
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(m.a(x)[:, None], m.b(x)[:, None], x[:, None]),
        [(SQUARE, A, B), (SQUARE, FLOAT, FLOAT)],
    ),
    "attention_in_three_dimensions": (
        lambda m, x: F.scaled_dot_product_attention(m.a(x), m.b(x), value=x, is_causal=True),
        [(SQUARE, A, B), (SQUARE, FLOAT, FLOAT)],
    ),
    "attention_of_grouped_queries": (
        lambda m, x: F.scaled_dot_product_attention(
            m.a(x).unflatten(2, (4, 2)).transpose(1, 2),
            m.b(x)[..., :4].unflatten(2, (2, 2)).transpose(1, 2),
            x[..., :4].unflatten(2, (2, 2)).transpose(1, 2),
            enable_gqa=True,
        ),
        [(SQUARE, A, B), (SQUARE, FLOAT, FLOAT)],
    ),
    "attention_kernel": (
        lambda m, x: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            m.a(x)[:, None], m.b(x)[:, None], m.a(x)[:, None]
        )[0],
        [(SQUARE, A, B), (SQUARE, FLOAT, A)],
    ),
    "bilinear": (
        lambda m, x: F.bilinear(m.a(x), m.b(x), torch.ones(3, WIDTH, WIDTH)),
        [(LENGTH * 3 * WIDTH * WIDTH, A, FLOAT), (LENGTH * 3 * WIDTH, FLOAT, B)],
    ),
    "cdist": (lambda m, x: torch.cdist(m.a(x), m.b(x)), [(SQUARE, A, B)]),
    "cdist_by_a_product": (
        lambda m, x: torch.cdist(m.a(x), m.b(x), compute_mode="use_mm_for_euclid_dist"),
        [(SQUARE, A, B)],
    ),
    "pdist": (
        lambda m, x: torch.stack([F.pdist(sample) for sample in m.a(x)]),
        [(LENGTH * (LENGTH - 1) // 2 * WIDTH, A, A)],
    ),
    "conv1d": (
        lambda m, x: F.conv1d(m.a(x).mT, torch.ones(4, WIDTH, 3), padding=1),
        [(LENGTH * 4 * WIDTH * 3, A, FLOAT)],
    ),
    "conv_tbc": (
        lambda m, x: torch.conv_tbc(
            m.a(x).transpose(0, 1).contiguous(), torch.ones(3, WIDTH, 4), torch.zeros(4), 1
        ),
        [(LENGTH * 4 * WIDTH * 3, A, FLOAT)],
    ),
    "conv_transposed": (
        lambda m, x: F.conv_transpose1d(m.a(x).mT, torch.ones(WIDTH, 4, 3), stride=2),
        [(LENGTH * WIDTH * 4 * 3, A, FLOAT)],
    ),
    "element_wise": (lambda m, x: m.a(x) * m.b(x) + torch.outer(x[0, 0], x[0, 1]).sum(), []),
    "inference_mode": (
        lambda m, x: without_gradients(lambda: F.linear(m.a(x), WEIGHT)),
        [(ROWS * WIDTH, A, FLOAT)],
    ),
    "vmap": (lambda m, x: torch.func.vmap(lambda row: row @ WEIGHT)(m.a(x)), [(ROWS * WIDTH, A, FLOAT)]),
}


def without_gradients(function: Callable[[], Tensor]) -> Tensor:
    with torch.inference_mode():
        return function().clone()


@pytest.mark.parametrize("samples", [2, 6])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_multiplies_per_sample_what_it_does_by_hand(name: str, samples: int) -> None:
    forward, by_hand = CALLS[name]
    assert counted(profile_of(forward, samples)) == sorted(by_hand, key=str)


# Two ways to write a network: what they multiply is the same, with the same operands.
SAME: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(m.a(x), m.b(x), m.a(x)),
        lambda m, x: attention(m.a(x), m.b(x), m.a(x)),
    ),
    "convolution_by_windows": (
        lambda m, x: F.conv2d(
            m.a(x).mT[..., None], WEIGHT[:, :, None, None].expand(-1, -1, 3, 1), padding=(1, 0)
        ),
        lambda m, x: (
            F.unfold(m.a(x).mT[..., None], (3, 1), padding=(1, 0)).mT
            @ WEIGHT[:, :, None].expand(-1, -1, 3).flatten(1).T
        ),
    ),
    "linear": (
        lambda m, x: F.linear(m.a(x), WEIGHT),
        lambda m, x: torch.einsum("bld,od->blo", m.a(x), WEIGHT),
    ),
    "bilinear": (
        lambda m, x: F.bilinear(m.a(x), m.b(x), WEIGHT[None]),
        lambda m, x: torch.einsum("bli,oij,blj->blo", m.a(x), WEIGHT[None], m.b(x)),
    ),
    "matrix_vector": (
        lambda m, x: m.a(x).flatten(0, 1).mv(WEIGHT[0]),
        lambda m, x: m.a(x).flatten(0, 1) @ WEIGHT[:1].T,
    ),
    "pixel_unshuffle": (
        lambda m, x: F.conv2d(F.pixel_unshuffle(m.a(x)[:, None, :4], 2), torch.ones(2, 4, 1, 1)),
        lambda m, x: F.conv2d(m.a(x)[:, None, :4], torch.ones(2, 1, 2, 2), stride=2),
    ),
    "circular_padding": (
        lambda m, x: nn.Conv1d(WIDTH, 4, 3, padding=1, padding_mode="circular", bias=False)(m.a(x).mT),
        lambda m, x: F.conv1d(m.a(x).mT, torch.ones(4, WIDTH, 3), padding=1),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_fused_and_written_out_networks_cost_the_same(name: str) -> None:
    fused, written_out = SAME[name]
    assert counted(profile_of(fused)) == counted(profile_of(written_out))


def recurrent_macs(layer: nn.RNNBase) -> int:
    """Each matrix once per step."""
    return LENGTH * sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2)


RECURRENT: dict[str, Callable[[], nn.RNNBase]] = {
    "lstm": lambda: nn.LSTM(WIDTH, 3, batch_first=True),
    "lstm_in_both_directions_and_two_layers": lambda: nn.LSTM(
        WIDTH, 3, 2, batch_first=True, bidirectional=True
    ),
    "lstm_with_projections": lambda: nn.LSTM(WIDTH, 6, batch_first=True, proj_size=2),
    "lstm_without_bias": lambda: nn.LSTM(WIDTH, 3, batch_first=True, bias=False),
    "gru": lambda: nn.GRU(WIDTH, 3, batch_first=True, bidirectional=True),
    "rnn": lambda: nn.RNN(WIDTH, 3, 2, batch_first=True, nonlinearity="relu"),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("fast", [True, False], ids=["mkldnn", "plain"])
def test_recurrent_layers_multiply_each_matrix_once_a_step(name: str, fast: bool) -> None:
    layer = RECURRENT[name]()
    fast = fast and not layer.proj_size  # oneDNN has no projections, and says so
    with torch.backends.mkldnn.flags(enabled=fast, allow_tf32=None):
        profile = profile_of(lambda m, x: m.layer(m.a(x))[0], layer=layer)
    assert not profile.unknown_operators
    assert sum(p.macs for p in profile.products) == recurrent_macs(layer)
    assert {p.layer for p in profile.products} == {"layer"}
    first = [p for p in profile.products if p.left.quantizers]
    assert sum(p.macs for p in first) == LENGTH * sum(
        w.numel() for n, w in layer.named_parameters() if n.startswith("weight_ih_l0")
    )


@pytest.mark.parametrize("projection", [0, 2])
def test_recurrent_kernels_of_graphics_cards_multiply_what_those_of_the_cpu_do(projection: int) -> None:
    layer = nn.LSTM(WIDTH, 6, 2, bidirectional=True, proj_size=projection)
    values, state = torch.randn(LENGTH, SAMPLES, WIDTH), torch.zeros(4, SAMPLES, 6)
    settings = (2, 6, projection, 2, False, 0.0, False, True, [], None)
    arguments = (values, list(layer.parameters()), 4, None, state, state, *settings)
    assert len(arguments) == len(torch.ops.aten._cudnn_rnn.default._schema.arguments)
    found = multiplications("aten::_cudnn_rnn", arguments, None)
    assert found is not None and sum(one.macs for one in found) == SAMPLES * recurrent_macs(layer)
    reading = [one.right for one in found if one.left is values]
    assert [id(w) for w in reading] == [id(layer.weight_ih_l0), id(layer.weight_ih_l0_reverse)]


@pytest.mark.parametrize("need_weights", [True, False])
def test_an_encoder_layer_costs_what_its_products_do(need_weights: bool) -> None:
    """The kernels that run whole layers are not taken, and are on again afterwards."""
    hidden = 16
    layers = {
        "attention": nn.MultiheadAttention(WIDTH, 2, batch_first=True),
        "encoder": nn.TransformerEncoderLayer(WIDTH, 2, hidden, batch_first=True),
    }

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return m.encoder(m.attention(m.a(x), x, x, need_weights=need_weights)[0])

    profile = profile_of(forward, **layers)
    of_attention = 4 * ROWS * WIDTH + 2 * SQUARE
    assert not profile.unknown_operators
    assert sum(p.macs for p in profile.products) == 2 * of_attention + 2 * ROWS * hidden
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_part_that_is_compiled_is_counted_as_it_was_written() -> None:
    compiled = torch.compile(nn.Linear(WIDTH, 4, bias=False), backend="eager")
    profile = profile_of(lambda m, x: m.part(m.a(x)), part=compiled)
    assert [macs for macs, _, _ in counted(profile)] == [ROWS * 4]
