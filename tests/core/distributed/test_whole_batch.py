"""Layers that get a part of a batch compute what one process computes of the whole."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import ShiftedUint8ActPerTensorFloat
from torch import Tensor, nn

from gfb_brevitas.distributed import current_world, in_all_processes
from gfb_brevitas.distributed.batches import part_of
from gfb_brevitas.distributed.whole_batch import WholeBatchLayers, reason_to_stay_whole
from tests.core.distributed.processes import in_processes

SAMPLES = 7  # parts of 3 and 4

NORMS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(3), (3,)),
    "1d with length": (lambda: nn.BatchNorm1d(3), (3, 5)),
    "2d": (lambda: nn.BatchNorm2d(3, momentum=0.3), (3, 4, 5)),
    "3d": (lambda: nn.BatchNorm3d(3), (3, 2, 3, 2)),
    "without affine": (lambda: nn.BatchNorm1d(3, affine=False), (3,)),
    "cumulative average": (lambda: nn.BatchNorm1d(3, momentum=None), (3,)),
    "without running statistics": (lambda: nn.BatchNorm1d(3, track_running_stats=False), (3,)),
}


def outcome(module: nn.Module, x: Tensor, target: Tensor) -> tuple[Any, ...]:
    """Two passes, so that running statistics and gradients are not those of a fresh module."""
    for scale in (1.0, 3.0):
        inputs = (x * scale).requires_grad_()
        module.zero_grad()
        y = module(inputs)
        (y.square() * target).sum().backward()
    assert inputs.grad is not None
    return y.detach(), inputs.grad, [p.grad for p in module.parameters()], list(module.buffers())


@in_all_processes
def deviations(kind: str, channels_last: bool) -> dict[str, float]:
    make, shape = NORMS[kind]
    torch.manual_seed(0)
    module = make().double()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    x = torch.randn(SAMPLES, *shape, dtype=torch.float64) * 5 + 100
    target = torch.rand_like(x)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    whole = outcome(module, x, target)
    module.load_state_dict(make().state_dict() | dict(module.named_parameters()))

    world = current_world()
    part = part_of(x, world.rank, world.size)
    assert part is not None
    own = slice(part.start, part.stop)
    layers = WholeBatchLayers(nn.Sequential(module), world)
    with layers.installed(), layers.dividing(part):
        y, to_x, to_parameters, buffers = outcome(module, x[own], target[own])
    assert "forward" not in vars(module)
    summed = [world.sum("gradient", gradient) for gradient in to_parameters]

    def furthest(found: list[Tensor], expected: list[Tensor]) -> float:
        return max((float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)), default=0.0)

    return {
        "output": furthest([y], [whole[0][own]]),
        "input gradient": furthest([to_x], [whole[1][own]]),
        "parameter gradients": furthest(summed, whole[2]),
        "running statistics": furthest(buffers, whole[3]),
    }


def every_deviation() -> dict[tuple[str, bool], dict[str, float]]:
    cases = [(kind, False) for kind in NORMS] + [("2d", True)]
    return {case: deviations(*case) for case in cases}


def test_batch_norm_is_that_of_the_whole_batch() -> None:
    for answer in in_processes(every_deviation):
        assert isinstance(answer, dict), answer
        for case, found in answer.items():
            assert max(found.values()) < 1e-8, (case, found)


@in_all_processes
def dropped(module: nn.Module, shape: tuple[int, ...], channels_last: bool) -> tuple[Any, Any, bool]:
    x = torch.ones(SAMPLES, *shape)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    torch.manual_seed(1)
    whole, after = module(x), torch.rand(1)
    world = current_world()
    part = part_of(x, world.rank, world.size)
    assert part is not None
    layers = WholeBatchLayers(module, world)
    torch.manual_seed(1)
    with layers.installed(), layers.dividing(part):
        found = module(x[part.start : part.stop])
    return found.numpy(), whole[part.start : part.stop].numpy(), bool(after == torch.rand(1))


@pytest.mark.parametrize(
    "module, shape, channels_last",
    [
        (nn.Dropout(0.5), (40,), False),
        (nn.Dropout(0.5), (4, 3, 5), True),
        (nn.Dropout2d(0.5), (40, 2, 2), False),
        (nn.Sequential(nn.Flatten(0, 1), nn.Dropout(0.5), nn.Unflatten(0, (-1, 6))), (6, 10), False),
    ],
    ids=str,
)
def test_dropout_drops_what_one_process_would(
    module: nn.Module, shape: tuple[int, ...], channels_last: bool
) -> None:
    for found, expected, same_draws_after in in_processes(dropped, module, shape, channels_last):
        assert 0 < (expected == 0).sum() < expected.size
        assert (found == expected).all() and same_draws_after


class OwnNorm(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def test_what_must_see_whole_batches() -> None:
    assert reason_to_stay_whole(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())) is None
    assert "1 is a BatchNorm" in str(reason_to_stay_whole(nn.Sequential(nn.ReLU(), OwnNorm(2))))
    collecting = qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat)
    assert "collects statistics" in str(reason_to_stay_whole(collecting))
    for module in collecting.modules():
        for finish in ("init_scale", "init_zp"):
            if hasattr(module, finish):
                getattr(module, finish)()
    assert reason_to_stay_whole(collecting) is None
