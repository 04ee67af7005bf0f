from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from gfb_brevitas.quant.compiling import SMALLEST_COMPILED, CompiledFunction, compiled, compiler_available

needs_compiler = pytest.mark.skipif(not compiler_available("cpu"), reason="needs a C++ compiler")


def compiled_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def test_small_tensors_never_wait_for_a_compiler():
    function = compiled(lambda x, y: x * y)
    before = compiled_graphs()
    assert function(torch.tensor([2.0]), torch.tensor(3.0)) == 6
    assert not function.will_compile(torch.zeros(SMALLEST_COMPILED - 1))
    assert compiled_graphs() == before


@needs_compiler
def test_one_kernel_serves_all_sizes_and_numbers():
    function = CompiledFunction(lambda x, y: (x * y).round(), smallest=8)
    before = compiled_graphs()
    for size in (10, 33, 1000):
        for number in (0.3, 7.0):
            x = torch.randn(size)
            assert torch.equal(function(x, torch.tensor(number)), (x * number).round())
    assert compiled_graphs() == before + 1


@needs_compiler
def test_more_ranks_and_layouts_than_kernels(caplog):
    function = CompiledFunction(lambda x, s: (x / s).round() * s, smallest=1)
    scale = torch.tensor(0.3)
    shapes = [(8,), (4, 6), (6, 6), (1, 6), (6, 1), (2, 3, 4), (3, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1)]
    shapes += [
        (2, 3, 4, 5),
        (3, 3, 4, 4),
        (1, 3, 4, 5),
        (2, 1, 4, 5),
        (2, 3, 1, 5),
        (2, 3, 1, 1),
        (2, 2, 2, 2, 2),
    ]
    with caplog.at_level("CRITICAL", logger="torch"):
        for shape in (*shapes, *shapes):
            x = torch.randn(shape)
            for layout in (x, x.transpose(0, -1)):
                assert torch.equal(function(layout, scale), (layout / scale).round() * scale)
    before = compiled_graphs()
    function(torch.randn(8), scale)
    assert compiled_graphs() == before  # the first kernel is still there


@needs_compiler
def test_who_watches_single_operations_sees_them():
    class Recorder(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(func._overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    function = CompiledFunction(lambda x: x.round() + 1, smallest=8)
    function(torch.randn(100))
    with Recorder() as recorder:
        function(torch.randn(100))
    assert recorder.seen[-2:] == ["round", "add"]


@needs_compiler
def test_what_cannot_be_compiled_runs_as_it_is(caplog):
    function = CompiledFunction(lambda x: x + float(x.sum() > 0), smallest=8)
    with caplog.at_level("CRITICAL", logger="torch"):
        assert torch.equal(function(torch.ones(10)), torch.full((10,), 2.0))
    assert torch.equal(function(-torch.ones(10)), -torch.ones(10))
