from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from gfb_brevitas.prepared.fuse_elementwise import Kernel, fuse_elementwise
from gfb_brevitas.prepared.loop_kernel import LoopKernel


def fused(function: Callable[..., Tensor], *inputs: Tensor, on_cpu: bool) -> tuple[fx.GraphModule, list[Any]]:
    graph = make_fx(function)(*inputs)
    fuse_elementwise(graph.graph, on_cpu=on_cpu)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, [n.target for n in graph.graph.nodes if isinstance(n.target, Kernel | LoopKernel)]


@pytest.fixture(params=[True, False], ids=["loops", "torch.compile"])
def on_cpu(request: pytest.FixtureRequest) -> bool:
    """Both ways work on the CPU."""
    return bool(request.param)


def test_a_chain_becomes_one_kernel(on_cpu: bool) -> None:
    x, y = torch.randn(4, 5), torch.randn(4, 5)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return ((x * 2 + y).relu() - y).abs()

    graph, kernels = fused(run, x, y, on_cpu=on_cpu)
    assert len(kernels) == 1
    assert torch.allclose(graph(x, y), run(x, y))


def test_what_pytorch_approximates_stays_pytorchs() -> None:
    x, y = torch.randn(4, 5), torch.randn(4, 5)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(x * 2 + y).relu() - y

    graph, kernels = fused(run, x, y, on_cpu=True)
    assert len(kernels) == 2  # before the sigmoid and after it
    assert torch.equal(graph(x, y), run(x, y))


def test_a_value_that_others_need_is_computed_once(on_cpu: bool) -> None:
    x = torch.randn(4, 4)

    def run(x: Tensor) -> Tensor:
        shared = (x * 2).relu()
        return (shared @ shared).abs() * 3 + (shared + 1).neg()

    graph, kernels = fused(run, x, on_cpu=on_cpu)
    assert torch.allclose(graph(x), run(x))
    assert len(kernels) == 2  # before the product and after it
    multiplications = [n for n in graph.graph.nodes if "mul" in str(n.target)]
    assert multiplications == []


def test_equal_chains_share_a_kernel(on_cpu: bool) -> None:
    x = torch.randn(4, 4)
    _, kernels = fused(lambda x: ((x * 2).relu() @ x * 2).relu(), x, on_cpu=on_cpu)
    assert len(kernels) == 2 and kernels[0] is kernels[1]


def test_chains_that_differ_in_numbers_share_a_loop() -> None:
    x = torch.randn(4, 4)
    graph, kernels = fused(lambda x: ((x * 2).relu() @ x * 3.5).relu(), x, on_cpu=True)
    assert len(kernels) == 2 and kernels[0] is kernels[1]
    assert torch.allclose(graph(x), ((x * 2).relu() @ x * 3.5).relu())


def test_any_size_layout_and_broadcast(on_cpu: bool) -> None:
    def run(x: Tensor, y: Tensor) -> Tensor:
        return ((x + y) * 0.5).relu() - x

    torch.manual_seed(0)
    cases = [
        (torch.randn(3, 4), torch.randn(3, 4)),
        (torch.randn(300, 400), torch.randn(300, 400)),
        (torch.randn(300, 400).t(), torch.randn(400, 300)),
        (torch.randn(8, 16, 32, 32).to(memory_format=torch.channels_last), torch.randn(1, 16, 1, 1)),
        *((torch.randn(8, 16, 32, 32).to(memory_format=torch.channels_last),) * 2,),
        (torch.randn(600, 800)[::2, ::2], torch.randn(300, 400)),
        (torch.randn(300, 1).expand(300, 400), torch.randn(300, 400)),
        (torch.randn(70_000), torch.randn(())),
    ]
    _, (kernel,) = fused(run, *cases[0], on_cpu=on_cpu)
    for x, y in cases:
        computed = kernel(x, y, 0.5) if on_cpu else kernel(x, y)
        assert torch.allclose(computed, run(x, y), atol=1e-6)
        assert computed.shape == run(x, y).shape
