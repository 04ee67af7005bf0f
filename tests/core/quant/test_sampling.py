from __future__ import annotations

import pytest
import torch

from gfb_brevitas.errors import CalibrationError
from gfb_brevitas.quant.sampling import ValueSampler


def test_small_tensors_are_kept_whole():
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    sampler = ValueSampler(None)
    sampler.add(x)
    sampler.add(y)
    assert torch.equal(sampler.values(), torch.cat([x.flatten(), y.flatten()])[None])
    assert len(sampler) == 48


@pytest.mark.parametrize("channel_dim", [0, 1, 2])
def test_channels_become_rows(channel_dim):
    x = torch.randn(2, 3, 4)
    sampler = ValueSampler(channel_dim)
    sampler.add(x)
    values = sampler.values()
    assert values.shape == (x.shape[channel_dim], 24 // x.shape[channel_dim])
    for channel in range(x.shape[channel_dim]):
        expected = x.select(channel_dim, channel).flatten().sort().values
        assert torch.equal(values[channel].sort().values, expected)


@pytest.mark.parametrize("elements", [99, 100, 101, 1000, 12_345])
def test_a_tensor_gives_at_most_its_share_from_all_over_it(elements):
    sampler = ValueSampler(None, per_call=100)
    sampler.add(torch.arange(elements))
    values = sampler.values()[0]
    assert 33 <= len(values) <= 100
    assert values[0] == 0 and values[-1] >= 0.9 * elements
    assert values.diff().unique().numel() == 1


def test_the_sample_does_not_fall_into_step_with_image_rows():
    rows = torch.arange(8).repeat(4096)  # every column of an image 8 pixels wide
    sampler = ValueSampler(None, per_call=1024)
    sampler.add(rows)
    assert sampler.values().unique().numel() == 8


def test_capacity_bounds_what_is_kept_in_all():
    sampler = ValueSampler(None, per_call=70, capacity=100)
    for _ in range(5):
        sampler.add(torch.randn(70))
    assert 100 / 3 <= len(sampler) <= 100 and sampler.values().shape == (1, len(sampler))


def test_early_and_late_tensors_count_alike_when_it_is_full():
    sampler = ValueSampler(None, per_call=200, capacity=1000)
    for number in range(100):
        sampler.add(torch.full((200,), float(number)))
    counts = torch.stack([sampler.values().eq(number).sum() for number in range(100)])
    assert counts.min() >= 1
    assert counts.max() <= 3 * counts.min() + 3


def test_the_sample_is_a_copy():
    x = torch.zeros(10)
    sampler = ValueSampler(None)
    sampler.add(x)
    x.fill_(7)
    assert sampler.values().eq(0).all()


def test_half_precision_is_kept_as_float32_without_gradients():
    sampler = ValueSampler(None)
    sampler.add(torch.randn(5, dtype=torch.float16, requires_grad=True))
    assert sampler.values().dtype == torch.float32 and not sampler.values().requires_grad


def test_scalars_and_empty_tensors_are_no_samples():
    # Brevitas probes quantizers with a scalar to read their scale.
    sampler = ValueSampler(None)
    sampler.add(torch.tensor(3.0))
    sampler.add(torch.empty(0, 4))
    assert len(sampler) == 0
    with pytest.raises(CalibrationError, match="never reached"):
        sampler.values()
