"""What only moves, selects or pads values keeps the quantizer; what computes does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gfb_brevitas.adapters import make_searchable
from gfb_brevitas.adapters.product_recorder import ProductRecorder, Surroundings
from gfb_brevitas.adapters.selections import sources_of_results
from gfb_brevitas.costs import BitOperations

OPEN = torch.library.Library("selections_test", "FRAGMENT")
OPEN.define("turned(Tensor x) -> Tensor")
OPEN.impl("turned", lambda x: x.roll(1, -1).clone(), "CompositeExplicitAutograd")
OPEN.define("doubled(Tensor x) -> Tensor")
OPEN.impl("doubled", lambda x: x + x, "CompositeExplicitAutograd")


def codes(seed: int, *shape: int, step: float = 0.25) -> Tensor:
    """Values as a quantizer of 4 bits makes them; shape ``shape``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 8, shape, generator=generator) * step


def sources(forward: Callable[..., Tensor], *shape: int) -> tuple[str, ...]:
    """Which of two quantizers a function's result comes from; none where it is computed."""
    a, b, x = codes(1, *shape), codes(2, *shape, step=0.375), torch.randn(shape)
    recorder = ProductRecorder([x])
    with torch.no_grad(), Surroundings(recorder), recorder:
        recorder.on_quantized("a", a)
        recorder.on_quantized("b", b)
        result = forward(a, b, x)
        recorder.look_for_outside(result)
        (result.flatten()[:1, None] @ torch.ones(1, 1)).sum()
    assert not recorder.trace.unknown
    return recorder.trace.products[-1][2].operand().quantizers


def filled(buffer: Tensor, *parts: tuple[Any, Tensor]) -> Tensor:
    for where, values in parts:
        buffer[where] = values
    return buffer


def in_place(values: Tensor, change: Callable[[Tensor], Any]) -> Tensor:
    change(values)
    return values


FRONT, BACK = (slice(None), slice(0, 4)), (slice(None), slice(4, None))

KEEPS: dict[str, Callable[..., Tensor]] = {
    "view": lambda a, b, x: a.view(2, -1).unflatten(1, (8, -1)).movedim(1, 0),
    "split": lambda a, b, x: torch.split(a, [1, 3], 1)[1].chunk(2, 2)[0].unbind(1)[2],
    "topk": lambda a, b, x: a.topk(3, -1).values,
    "sort": lambda a, b, x: a.sort(-1, descending=True).values,
    "gather": lambda a, b, x: a.gather(-1, b.argsort(-1)),
    "index": lambda a, b, x: a[:, [0, 2]][x[:, :2] > 0],
    "take_along_dim": lambda a, b, x: torch.take_along_dim(a, a.argmax(1, keepdim=True), 1),
    "roll": lambda a, b, x: a.roll((1, 2), (2, 3)).flip(1).rot90(1, (2, 3)),
    "pixel_shuffle": lambda a, b, x: F.pixel_unshuffle(F.channel_shuffle(F.pixel_shuffle(a, 2), 1), 2),
    "pad_constant": lambda a, b, x: F.pad(a, (1, 1), value=0.5),
    "pad_reflect": lambda a, b, x: F.pad(a, (1, 1, 1, 1), mode="reflect"),
    "pad_replicate": lambda a, b, x: F.pad(a, (1, 1, 1, 1), mode="replicate"),
    "pad_circular": lambda a, b, x: F.pad(a, (1, 1, 1, 1), mode="circular"),
    "pad_by_hand": lambda a, b, x: filled(torch.zeros(2, 4, 10, 10), ((..., slice(1, 9), slice(1, 9)), a)),
    "where": lambda a, b, x: torch.where(x > 0, a, 0.0),
    "where_zeros": lambda a, b, x: torch.where(x > 0, a, torch.zeros_like(x)),
    "masked_fill": lambda a, b, x: a.masked_fill(x > 0, 0.0),
    "clamp": lambda a, b, x: a.clamp(-1, 1.3),
    "relu6": lambda a, b, x: F.relu6(F.hardtanh(F.relu(a * 1))),
    "hardshrink": lambda a, b, x: F.hardshrink(F.threshold(a, 0.2, 0.0)),
    "max_pool": lambda a, b, x: F.max_pool2d(a, 3, 2, 1),
    "max_pool_3d": lambda a, b, x: F.max_pool3d(a, 2),
    "adaptive_max_pool": lambda a, b, x: F.adaptive_max_pool2d(a, 3),
    "fractional_max_pool": lambda a, b, x: F.fractional_max_pool2d(
        a, 2, output_size=4, _random_samples=torch.full((2, 4, 2), 0.5)
    ),
    "max_unpool": lambda a, b, x: F.max_unpool2d(*F.max_pool2d(a, 2, return_indices=True), 2),
    "amax": lambda a, b, x: a.amax((2, 3)),
    "amin": lambda a, b, x: a.amin(1),
    "cummax": lambda a, b, x: a.cummax(-1).values,
    "median": lambda a, b, x: a.median(-1).values,
    "nearest": lambda a, b, x: F.interpolate(a, scale_factor=2, mode="nearest-exact"),
    "grid_of_nearest": lambda a, b, x: F.grid_sample(
        a, x[:, 0, :, :2].unsqueeze(1).tanh(), mode="nearest", align_corners=False
    ),
    "repeat": lambda a, b, x: a.repeat_interleave(2, 1).tile(1, 1, 2, 1)[:, :1].expand(2, 5, 16, 8),
    "dropout": lambda a, b, x: F.dropout2d(F.dropout(a, 0.5, False), 0.5, False),
    "windows": lambda a, b, x: F.fold(F.unfold(a, 2, stride=2), 8, 2, stride=2).unfold(2, 3, 1),
    "triangle": lambda a, b, x: torch.diag_embed(torch.diagonal(a.tril(), dim1=2, dim2=3)),
    "scatter": lambda a, b, x: torch.zeros_like(a).scatter(1, torch.ones_like(a, dtype=torch.long), a),
    "rows_of_a_table": lambda a, b, x: F.embedding(torch.tensor([[0, 1]]), a[0, 0]),
    "largest_row": lambda a, b, x: F.embedding_bag(torch.tensor([[0, 1]]), a[0, 0], mode="max"),
    "padded_sequence": lambda a, b, x: nn.utils.rnn.pad_sequence([a[0, 0], a[0, 1, :3]]),
    "mean_of_one": lambda a, b, x: a[:, :1].mean(1),
    "negated": lambda a, b, x: (-a).abs(),
    "copied": lambda a, b, x: a.double().float().clone().contiguous(memory_format=torch.channels_last),
    "detached": lambda a, b, x: a.detach().data,
    "rectified_in_place": lambda a, b, x: in_place(a, lambda t: t[:, :2].relu_()),
    "clamped_in_place": lambda a, b, x: a.clamp_(-1, 1),
    "zeroed_in_place": lambda a, b, x: in_place(a, lambda t: t[:, 0].zero_()),
    "turned_in_place": lambda a, b, x: a.transpose_(1, 2),
    "put_into_zeros": lambda a, b, x: torch.zeros(4, 4, 8, 8).index_put((torch.tensor([0, 2]),), a),
    "written_into_zeros": lambda a, b, x: filled(x.new_zeros(2, 8, 8, 8), (FRONT, a)),
    "joined_with_zeros": lambda a, b, x: torch.cat([a, torch.zeros(2, 1, 8, 8)], 1),
    "operator_of_others": lambda a, b, x: torch.ops.selections_test.turned(a),
}

BOTH: dict[str, Callable[..., Tensor]] = {
    "cat": lambda a, b, x: torch.cat([a, b], 1),
    "stack": lambda a, b, x: torch.stack([a, b]),
    "maximum": lambda a, b, x: torch.maximum(a, b),
    "where": lambda a, b, x: torch.where(x > 0, a, b),
    "written_into_memory": lambda a, b, x: filled(torch.empty(2, 8, 8, 8), (FRONT, a), (BACK, b)),
    "written_over": lambda a, b, x: filled(a, ((slice(None), 0), b[:, 0])),
    "block_diag": lambda a, b, x: torch.block_diag(a[0, 0], b[0, 0]),
}

COMPUTES: dict[str, Callable[..., Tensor]] = {
    "sum_of_two": lambda a, b, x: a + b,
    "product": lambda a, b, x: a * b,
    "multiple": lambda a, b, x: a * 2,
    "shifted_in_place": lambda a, b, x: in_place(a, lambda t: t[:, :2].add_(0.1)),
    "average": lambda a, b, x: F.avg_pool2d(a, 2),
    "sum": lambda a, b, x: a.sum(1),
    "cumsum": lambda a, b, x: a.cumsum(-1),
    "linear_interpolation": lambda a, b, x: F.interpolate(a, scale_factor=2, mode="bilinear"),
    "softmax": lambda a, b, x: a.softmax(-1),
    "layer_norm": lambda a, b, x: F.layer_norm(a, (8,)),
    "batch_norm": lambda a, b, x: F.batch_norm(a, torch.zeros(4), torch.full((4,), 2.0)),
    "leaky": lambda a, b, x: F.leaky_relu(a),
    "rounded": lambda a, b, x: a.round(),
    "overlapping_windows": lambda a, b, x: F.fold(F.unfold(a, 3, padding=1), 8, 3, padding=1),
    "joined_with_floats": lambda a, b, x: torch.cat([a, x], 1),
    "chosen_from_floats": lambda a, b, x: torch.where(x > 0, a, x),
    "floats_written_over": lambda a, b, x: filled(a, ((slice(None), 0), x[:, 0])),
    "written_over_floats": lambda a, b, x: filled(x, ((slice(None), 0), a[:, 0])),
    "far_constant": lambda a, b, x: a.masked_fill(x > 0, -1e9),
    "ones": lambda a, b, x: torch.ones_like(a),
    "quantile": lambda a, b, x: a.quantile(0.3, -1),
    "renorm": lambda a, b, x: a.renorm(2, 0, 1.0),
    "norm": lambda a, b, x: F.normalize(a),
    "dropout_in_training": lambda a, b, x: F.dropout(a, 0.5, True),
    "classes": lambda a, b, x: F.cross_entropy(a, torch.zeros(2, 8, 8, dtype=torch.long), reduction="none"),
}


@pytest.mark.parametrize("name", KEEPS)
def test_values_that_move_keep_their_quantizer(name: str) -> None:
    assert sources(KEEPS[name], 2, 4, 8, 8) == ("a",)


@pytest.mark.parametrize("name", BOTH)
def test_values_of_two_quantizers_come_from_both(name: str) -> None:
    assert set(sources(BOTH[name], 2, 4, 8, 8)) == {"a", "b"}


@pytest.mark.parametrize("name", COMPUTES)
def test_computed_values_come_from_no_quantizer(name: str) -> None:
    torch.manual_seed(0)
    assert sources(COMPUTES[name], 2, 4, 8, 8) == ()


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda t: t.flip(-1),
    "pad": lambda t: F.pad(t, (1, 0)),
    "wrap": lambda t: F.pad(t, (1, 1, 1, 1), mode="circular"),
    "largest": lambda t: F.max_pool2d(t, 2, 1),
    "sorted": lambda t: t.sort(-1).values,
    "larger": lambda t: F.interpolate(t, scale_factor=2),
    "turned": lambda t: t.transpose(-1, -2),
    "doubled": lambda t: torch.cat([t, -t], 1),
    "rectified": lambda t: t.clamp(min=0),
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(MOVES)), min_size=1, max_size=4), st.booleans(), st.integers(0, 3))
def test_any_chain_of_moves_keeps_the_quantizer_and_any_sum_within_drops_it(
    chain: list[str], computes: bool, place: int
) -> None:
    def forward(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        for i, name in enumerate(chain):
            a = a + 0.4 * a.roll(1, -1) if computes and i == min(place, len(chain) - 1) else a
            a = MOVES[name](a)
        return a

    assert sources(forward, 1, 2, 4, 4) == (() if computes else ("a",))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 6))
def test_a_selection_names_exactly_its_sources(seed: int, size: int, among: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    operands = [torch.randn(size, generator=generator) for _ in range(among)]
    chosen = torch.randint(among, (size,), generator=generator)

    def select(*tensors: Tensor) -> Tensor:
        return torch.stack(tensors)[chosen, torch.arange(size)]

    (found,) = sources_of_results(select, operands, {}, select(*operands), lambda _: True)
    assert found is not None
    assert {id(t) for t in found} == {id(operands[i]) for i in chosen.unique()}


def test_looking_changes_no_random_numbers_and_no_operands() -> None:
    values = codes(0, 4, 4)
    before = values.clone()
    state = torch.get_rng_state()
    sources(lambda a, b, x: torch.ops.selections_test.turned(values.relu_()), 4, 4)
    torch.set_rng_state(state)
    recorder = ProductRecorder()
    with recorder:
        recorder.on_quantized("a", before)
        before.roll(1).sort()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unsearched_quantizer_bounds_what_it_is_joined_with() -> None:
    from brevitas.quant import SignedBinaryActPerTensorConst

    class Joined(nn.Module):
        def __init__(self, other: nn.Module) -> None:
            super().__init__()
            self.one, self.other = qnn.QuantIdentity(), other
            self.out = qnn.QuantLinear(12, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.cat([self.one(x), self.other(x)], 1))

    class EightBits(nn.Module):
        """A quantizer whose width is not searched."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = qnn.QuantIdentity(SignedBinaryActPerTensorConst)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    profile = make_searchable(Joined(EightBits()), torch.randn(2, 6)).profile
    (product,) = profile.products
    assert product.left.quantizers == ("one.act_quant",) and product.left.least_bits == 1
    bits = BitOperations().bind(profile)
    narrow = torch.full((1, len(profile)), 4).numpy()
    assert bits(narrow)[0] == 24 * 4 * 4
