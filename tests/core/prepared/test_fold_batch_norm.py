from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from gfb_brevitas.prepared.fold_batch_norm import batch_factor_and_offset, fold_batch_norm


@pytest.mark.parametrize("dimensions", [2, 3, 4, 5])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_statistics_of_the_batch(dimensions: int, affine: bool, offset: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 5, *(6,) * (dimensions - 2)) * 0.1 + offset
    weight, bias = (torch.rand(5) + 0.5, torch.randn(5)) if affine else (None, None)
    factor, shift = batch_factor_and_offset(x, weight, bias, 1e-5)
    scaling = [None if t is None else t.double() for t in (weight, bias)]
    expected = F.batch_norm(x.double(), None, None, *scaling, training=True)
    # What float32 can tell of a value whose mean is so far from zero.
    noise = 1e-5 + 1e-6 * offset / 0.1
    assert torch.allclose((x * factor + shift).double(), expected, atol=noise, rtol=1e-5)


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize("bias", [True, False])
def test_running_statistics_become_part_of_the_convolution(convolution: type[nn.Module], bias: bool) -> None:
    torch.manual_seed(0)
    number = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[convolution]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[number]
    model = nn.Sequential(convolution(3, 4, 3, bias=bias), norm(4), convolution(4, 4, 1, bias=bias))
    x = torch.randn(8, 3, *(6,) * number)
    model.train()
    model(x)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        graph = make_fx(model)(x)
        fold_batch_norm(graph.graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        assert torch.allclose(graph(x), expected, atol=1e-5)
    names = [str(node.target) for node in graph.graph.nodes]
    assert not any("batch_norm" in name or "mul" in name for name in names)


def test_a_convolution_whose_result_is_used_twice_stays_as_it_is() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    nn.init.uniform_(norm.running_mean)
    x = torch.randn(2, 3, 6, 6)

    def run(x: torch.Tensor) -> torch.Tensor:
        y = conv(x)
        return torch.cat([y, norm(y)])

    with torch.no_grad():
        graph = make_fx(run)(x)
        fold_batch_norm(graph.graph)
        graph.recompile()
        assert torch.allclose(graph(x), run(x), atol=1e-6)
