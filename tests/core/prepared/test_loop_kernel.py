from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from gfb_brevitas.prepared import loop_kernel, native_code
from gfb_brevitas.prepared.loop_kernel import LoopKernel
from gfb_brevitas.prepared.site_values import decode, encode, round_to_scale

aten = torch.ops.aten
SCALE, LOW, HIGH = torch.tensor(0.3), torch.tensor(-7.0), torch.tensor(7.0)
OPERATIONS: list[tuple[Any, ...]] = [
    (encode, SCALE, LOW, HIGH, False),
    (encode, SCALE, LOW, HIGH, True),
    (round_to_scale, SCALE, LOW, HIGH, False),
    (round_to_scale, SCALE, LOW, HIGH, True),
    (aten.add.Tensor, 0.1),
    (aten.sub.Tensor, torch.tensor(0.1)),
    (aten.mul.Tensor, 3),
    (aten.div.Tensor, 0.7),
    (aten.rsub.Scalar, 0.7),
    (aten.neg.default,),
    (aten.abs.default,),
    (aten.relu.default,),
    (aten.hardtanh.default,),
    (aten.hardtanh.default, 0.0, 6.0),
    (aten.clamp.default, -0.5, 1.5),
    (aten.clamp.default, None, 1.5),
    (aten.clamp_min.default, 0.25),
    (aten.clamp_max.default, 0.25),
    (aten.leaky_relu.default, 0.2),
    (aten.hardswish.default,),
    (aten.hardsigmoid.default,),
    (aten.reciprocal.default,),
    (aten.round.default,),
    (aten.floor.default,),
    (aten.ge.Scalar, 0.5),
    (aten.gt.Scalar, 0.5),
    (aten.lt.Scalar, 0.5),
]


def kernel_of(operation: Any, *constants: Any) -> tuple[LoopKernel, tuple[Any, ...]]:
    """A kernel of one operation, and what enters it beside its first argument."""
    graph = fx.Graph()
    nodes = [graph.placeholder("x")]
    entering = tuple(c for c in constants if c is not None)
    nodes += [None if c is None else graph.placeholder(f"c{i}") for i, c in enumerate(constants)]
    graph.output(graph.call_function(operation, tuple(nodes)))
    return LoopKernel(graph), entering


def is_compiled(kernel: LoopKernel) -> bool:
    return bool(kernel._plans) and all(plan is not None for plan in kernel._plans.values())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o[0].__name__} {o[1:]}")
def test_every_operation_is_pytorchs_bit_for_bit(operation: tuple[Any, ...]) -> None:
    x = 3 * torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    x[0, :4] = torch.tensor([0.0, 0.5, -0.5, 0.15])
    is_rounded = operation[0] is encode
    if not is_rounded:  # which byte stands for NaN is no matter
        x[1, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    kernel, constants = kernel_of(*operation)
    computed, expected = kernel(x, *constants), operation[0](x, *operation[1:])
    assert is_compiled(kernel)
    assert computed.dtype == expected.dtype
    assert torch.equal(torch.nan_to_num(computed), torch.nan_to_num(expected))


def test_codes_and_masks_enter_and_leave() -> None:
    codes = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    kernel, constants = kernel_of(decode, SCALE, LOW)
    assert torch.equal(kernel(codes, *constants), decode(codes, SCALE, LOW)) and is_compiled(kernel)

    mask, x, y = torch.randn(16, 16) > 0, torch.randn(16, 16), torch.randn(16, 1)
    kernel, _ = kernel_of(aten.where.self, x, y)
    assert torch.equal(kernel(mask, x, y), torch.where(mask, x, y)) and is_compiled(kernel)


@pytest.mark.parametrize("operation", [aten.minimum.default, aten.maximum.default])
def test_nan_stays_nan(operation: Any) -> None:
    x, y = torch.tensor([1.0, math.nan, 2.0, math.nan]), torch.tensor([math.nan, 1.0, 1.0, math.nan])
    kernel, _ = kernel_of(operation, y)
    assert torch.equal(kernel(x, y).isnan(), operation(x, y).isnan())


def shapes() -> list[tuple[Tensor, Tensor]]:
    image = torch.randn(3, 16, 5, 6)
    last = image.contiguous(memory_format=torch.channels_last)
    return [
        (image, torch.randn(1, 16, 1, 1)),
        (last, torch.randn(1, 16, 1, 1)),
        (last, image),
        (last[:, :, :4:2], image[:, :, 1::2]),
        (torch.randn(7, 1, 3, 1, 2), torch.randn(1, 5, 1, 4, 1)),
        (torch.randn(4, 1), torch.randn(6)),
        (torch.randn(6, 4).t(), torch.randn(4, 6)),
        (torch.randn(()), torch.randn(())),
        (torch.randn(0, 3), torch.randn(3)),
        (torch.randn(3, 1).expand(3, 4), torch.randn(3, 4)),
        (torch.randn(2, 2, 2, 2, 2, 2)[..., ::1, :1].expand(2, 2, 2, 2, 2, 3), torch.randn(2, 1, 2, 1, 2, 3)),
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_any_shape_layout_and_broadcast(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kernel, _ = kernel_of(aten.add.Tensor, 0)
        for x, y in [*shapes(), (torch.randn(300, 400), torch.randn(400))]:
            assert torch.equal(kernel(x, y), x + y)
    finally:
        torch.set_num_threads(before)


def test_other_types_run_operation_by_operation() -> None:
    kernel, _ = kernel_of(aten.add.Tensor, 0)
    x, y = torch.randn(3, 4).double(), torch.randn(4).double()
    assert torch.equal(kernel(x, y), x + y) and not is_compiled(kernel)


def test_without_a_compiler_operations_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_kernel, "native_function", lambda *_: None)
    kernel, _ = kernel_of(aten.mul.Tensor, 0)
    x, y = torch.randn(3, 4), torch.randn(4)
    assert torch.equal(kernel(x, y), x * y) and not is_compiled(kernel)


def test_a_source_that_does_not_compile_is_said_and_done_without(caplog: pytest.LogCaptureFixture) -> None:
    assert native_code.native_function("this is no C++", "f") is None
    assert "run one by one" in caplog.text


def test_a_library_that_was_cut_short_is_made_anew(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    source = 'extern "C" void twice(double* x) { *x *= 2; }'
    for _ in range(2):
        function = native_code.native_function.__wrapped__(source, "twice")
        value = ctypes.c_double(3.0)
        function(ctypes.byref(value))
        assert value.value == 6.0
        (library,) = tmp_path.rglob("*.so")
        whole = library.read_bytes()
        library.unlink()  # this process has it mapped
        library.write_bytes(whole[: len(whole) // 2])
