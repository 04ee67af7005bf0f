from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.quant import IntegerFormat, fake_quantize, make_clipping

KINDS = ["constant", "linear", "per_bit"]
positive = st.floats(1e-4, 1e4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (5, 1, 1)])
def test_starts_at_the_given_value_at_every_width(kind, shape):
    start = torch.rand(shape) + 0.1
    clipping = make_clipping(kind, start, max_bits=12)
    for bits in range(1, 13):
        assert torch.equal(clipping(bits), start)


@given(positive, st.floats(0, 1e3))
def test_a_line_reproduces_targets_on_a_line(start, slope):
    clipping = make_clipping("linear", torch.tensor(1.0), max_bits=8)
    targets = {bits: torch.tensor(start + slope * bits) for bits in range(1, 9)}
    clipping.fit(targets)
    for bits, target in targets.items():
        torch.testing.assert_close(clipping(bits).detach(), target, rtol=1e-4, atol=0)


def test_a_line_is_fitted_per_channel():
    first, slope = torch.tensor([1.0, 5.0]).reshape(2, 1), torch.tensor([0.5, 0.1]).reshape(2, 1)
    clipping = make_clipping("linear", torch.ones(2, 1), max_bits=8)
    clipping.fit({bits: first + slope * bits for bits in range(2, 9)})
    torch.testing.assert_close(clipping(6).detach(), torch.tensor([[4.0], [5.6]]))


def test_a_line_is_the_least_squares_one_and_leaves_one_bit_out():
    generator = np.random.default_rng(0)
    values = {bits: 1 + 0.3 * bits + 0.1 * generator.standard_normal() for bits in range(2, 9)}
    slope, intercept = np.polyfit(list(values), list(values.values()), 1)
    clipping = make_clipping("linear", torch.tensor(1.0), max_bits=8)
    clipping.fit({1: torch.tensor(5.0)} | {bits: torch.tensor(v) for bits, v in values.items()})
    for bits in range(1, 9):
        assert clipping(bits).item() == pytest.approx(intercept + slope * bits, rel=1e-4)


@given(st.dictionaries(st.integers(1, 12), positive, min_size=1))
@example({2: 10.0, 3: 1.0, 4: 1.0})
@example({2: 1.0, 3: 1.0, 4: 10.0})
def test_a_fitted_line_is_positive_at_every_width_it_was_fitted_to(wanted):
    clipping = make_clipping("linear", torch.tensor(1.0), max_bits=12)
    clipping.fit({bits: torch.tensor(value) for bits, value in wanted.items()})
    for bits in range(min(wanted), max(wanted) + 1):
        assert clipping(bits) >= 0.4 * min(wanted.values())


def test_one_value_per_width_takes_every_target():
    targets = {bits: torch.tensor(2.0 / bits) for bits in (1, 3, 8)}
    clipping = make_clipping("per_bit", torch.tensor(1.0), max_bits=8)
    clipping.fit(targets)
    for bits, target in targets.items():
        torch.testing.assert_close(clipping(bits).detach(), target)


def test_one_value_for_all_widths_takes_the_median():
    clipping = make_clipping("constant", torch.tensor(1.0), max_bits=8)
    clipping.fit({2: torch.tensor(1.0), 3: torch.tensor(2.0), 4: torch.tensor(90.0)})
    assert clipping(7).item() == pytest.approx(2.0)


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize(
    "kind, count, moved", [("constant", 1, range(1, 9)), ("linear", 2, range(1, 9)), ("per_bit", 1, None)]
)
def test_learning_at_one_width_moves_the_widths_that_share_its_parameters(kind, count, moved, bits):
    clipping = make_clipping(kind, torch.tensor(1.0), max_bits=8)
    assert len(list(clipping.parameters())) == count
    torch.optim.SGD(clipping.parameters(), lr=0.1).zero_grad()
    optimizer = torch.optim.SGD(clipping.parameters(), lr=0.1)
    clipping(bits).backward()
    optimizer.step()
    changed = [width for width in range(1, 9) if clipping(width) != 1]
    assert changed == (list(moved) if moved else [bits])


@pytest.mark.parametrize("kind", KINDS)
def test_the_clipping_value_stays_positive_and_can_recover(kind):
    clipping = make_clipping(kind, torch.tensor(2.0), max_bits=8)
    with torch.no_grad():
        for parameter in clipping.parameters():
            parameter.fill_(-1.0)
    value = clipping(4)
    assert 0 < value < 1e-6
    x = torch.randn(100)
    quantized, scale = fake_quantize(x, value, 4, IntegerFormat.plain(signed=True, narrow_range=True))
    assert torch.isfinite(quantized).all() and scale > 0

    # Learning to represent x opens the range again.
    optimizer = torch.optim.SGD(clipping.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        quantized, _ = fake_quantize(x, clipping(4), 4, IntegerFormat.plain(signed=True, narrow_range=True))
        (quantized - x).square().mean().backward()
        optimizer.step()
    assert clipping(4) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_holds_the_fitted_values(kind):
    fitted = make_clipping(kind, torch.tensor([[1.0], [2.0]]), max_bits=8)
    fitted.fit({bits: torch.rand(2, 1) + bits for bits in range(1, 9)})
    other = make_clipping(kind, torch.ones(2, 1), max_bits=8)
    other.load_state_dict(fitted.state_dict())
    for bits in range(1, 9):
        assert torch.equal(other(bits), fitted(bits))


def test_an_unknown_form_is_refused_by_name():
    with pytest.raises(ConfigurationError, match=r'"constant", "linear" or "per_bit"; got \'cubic\''):
        make_clipping("cubic", torch.tensor(1.0), max_bits=8)
