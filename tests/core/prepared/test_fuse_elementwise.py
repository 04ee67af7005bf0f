from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from gfb_brevitas.prepared.fuse_elementwise import Kernel, fuse_elementwise


def fused(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[fx.GraphModule, list[Kernel]]:
    graph = make_fx(function)(*inputs)
    fuse_elementwise(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, [n.target for n in graph.graph.nodes if isinstance(n.target, Kernel)]


def test_a_chain_becomes_one_kernel() -> None:
    x, y = torch.randn(4, 5), torch.randn(4, 5)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return (torch.sigmoid(x * 2 + y).relu() - y).tanh()

    graph, kernels = fused(run, x, y)
    assert len(kernels) == 1
    assert torch.allclose(graph(x, y), run(x, y))


def test_a_value_that_others_need_is_computed_once() -> None:
    x = torch.randn(4, 4)

    def run(x: Tensor) -> Tensor:
        shared = (x * 2).relu()
        return (shared @ shared).tanh() * 3 + (shared + 1).sigmoid()

    graph, kernels = fused(run, x)
    assert torch.allclose(graph(x), run(x))
    assert len(kernels) == 2  # before the product and after it
    multiplications = [n for n in graph.graph.nodes if "mul" in str(n.target)]
    assert multiplications == []


def test_equal_chains_share_a_kernel() -> None:
    x = torch.randn(4, 4)
    _, kernels = fused(lambda x: ((x * 2).relu() @ x * 2).relu(), x)
    assert len(kernels) == 2 and kernels[0] is kernels[1]


def test_any_size_layout_and_broadcast() -> None:
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
    _, (kernel,) = fused(run, *cases[0])
    for x, y in cases:
        computed = kernel(x, y)
        assert torch.allclose(computed, run(x, y), atol=1e-6)
        assert computed.shape == run(x, y).shape
