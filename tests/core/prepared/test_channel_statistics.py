from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gfb_brevitas.prepared import channel_statistics
from gfb_brevitas.prepared.channel_statistics import batch_factor_and_offset


@pytest.mark.parametrize("shape", [(8, 16, 9, 7), (5, 19, 4, 4), (6, 3, 50), (33, 12), (4, 40, 1, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_batch_norm(shape: tuple[int, ...], channels_last: bool, threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 100 + 3 * torch.randn(shape, generator=generator)  # sums of squares would cancel
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    weight, bias = torch.rand(shape[1], generator=generator), torch.randn(shape[1], generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        factor, offset = batch_factor_and_offset(x, weight, bias, 1e-5)
    finally:
        torch.set_num_threads(before)
    expected = F.batch_norm(x.double(), None, None, weight.double(), bias.double(), True, 0.1, 1e-5)
    torch.testing.assert_close(x * factor + offset, expected.float(), rtol=1e-5, atol=3e-5)
    alone = channel_statistics._one_by_one(x, weight, bias, 1e-5)
    torch.testing.assert_close((factor, offset), alone, rtol=1e-5, atol=1e-4)


def test_without_weight_and_bias_and_with_nan() -> None:
    x = torch.randn(4, 3, 5)
    factor, offset = batch_factor_and_offset(x, None, None, 1e-5)
    torch.testing.assert_close(x * factor + offset, F.batch_norm(x, None, None, training=True))
    x[0, 1, 0] = float("nan")
    factor, _ = batch_factor_and_offset(x, None, None, 1e-5)
    assert factor.isnan().flatten().tolist() == [False, True, False]
