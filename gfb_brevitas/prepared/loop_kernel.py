"""A group of element-wise operations as one loop over memory on the CPU."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from gfb_brevitas.prepared.loop_source import (
    DIMENSIONS,
    PARALLEL_FROM,
    Nest,
    kind_of,
    kinds_of_arguments,
    loop_source,
)
from gfb_brevitas.prepared.native_code import native_function

_TYPES = {"float": torch.float32, "uint8_t": torch.uint8, "bool": torch.bool}


@dataclass(frozen=True)
class _Plan:
    """How a loop runs over arguments of certain shapes and layouts.

    Attributes:
        function: The compiled loop.
        shape, strides: Of the result.
        sizes: Of the loops, the innermost last.
        steps: Of the result and every tensor, how far each loop goes.
        threads: How many share the work.
    """

    function: Callable[..., None]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    sizes: Any
    steps: Any
    threads: int


class LoopKernel:
    """A fused group, as a function of the tensors and numbers that enter it.

    It runs as compiled code where all tensors are on the CPU and of the expected types, else operation by
    operation; the results are the same.

    Args:
        graph: The group: placeholders, operations whose source is known, and one result.
    """

    __name__ = "loop_kernel"
    worth_keeping = True

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._types = [_TYPES[kind] for kind in kinds_of_arguments(graph)]
        (result,) = graph.find_nodes(op="output")[0].all_input_nodes
        self._type = _TYPES[kind_of(result)]
        self._plans: dict[Any, _Plan | None] = {}

    def __call__(self, *arguments: Any) -> Tensor:
        """The group's result."""
        key = tuple(
            (a.shape, a.stride(), a.dtype, a.device.type)
            if isinstance(a, Tensor)
            else (a if isinstance(a, bool) else None)
            for a in arguments
        )
        threads = torch.get_num_threads()
        plan = self._plans.get((key, threads), self)
        if plan is self:
            plan = self._plans[key, threads] = self._plan(arguments, threads)
        if plan is None:
            return self._one_by_one(*arguments)
        assert isinstance(plan, _Plan)
        return self._run(plan, arguments)

    @cached_property
    def _one_by_one(self) -> Callable[..., Tensor]:
        function: Callable[..., Tensor] = fx.GraphModule(nn.Module(), self._graph).forward
        return function

    def _run(self, plan: _Plan, arguments: tuple[Any, ...]) -> Tensor:
        result = torch.empty_strided(plan.shape, plan.strides, dtype=self._type)
        pointers = [result.data_ptr(), *(a.data_ptr() for a in arguments if isinstance(a, Tensor))]
        numbers = [float(a) for a in arguments if not isinstance(a, Tensor | bool)]
        plan.function(
            (ctypes.c_void_p * len(pointers))(*pointers),
            plan.sizes,
            plan.steps,
            (ctypes.c_float * max(1, len(numbers)))(*numbers),
            plan.threads,
        )
        return result

    def _plan(self, arguments: tuple[Any, ...], threads: int) -> _Plan | None:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if not tensors or not self._is_as_expected(arguments):
            return None
        shape = torch.broadcast_shapes(*(t.shape for t in tensors))
        if 0 in shape:
            return None
        strides = _strides_of_result(tensors, shape)
        threads = threads if shape.numel() >= PARALLEL_FROM else 1
        nest = _nest(shape, [strides, *(t.expand(shape).stride() for t in tensors)], threads)
        if nest is None:
            return None
        function = native_function(loop_source(self._graph, nest, [_form(a) for a in arguments]), "loop")
        if function is None:
            return None
        steps = [step for steps in nest.steps for step in steps]
        return _Plan(
            function=function,
            shape=tuple(shape),
            strides=strides,
            sizes=(ctypes.c_long * DIMENSIONS)(*nest.sizes),
            steps=(ctypes.c_long * len(steps))(*steps),
            threads=threads,
        )

    def _is_as_expected(self, arguments: tuple[Any, ...]) -> bool:
        return all(
            a.dtype == expected and a.device.type == "cpu" if isinstance(a, Tensor) else _is_number(a)
            for a, expected in zip(arguments, self._types, strict=True)
        )


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _strides_of_result(tensors: list[Tensor], shape: torch.Size) -> tuple[int, ...]:
    """Those of the first tensor of that shape without gaps, as PyTorch itself chooses them."""
    for tensor in tensors:
        if tensor.shape == shape and _is_dense(tensor):
            return tensor.stride()
    return torch.empty(shape, device="meta").stride()


def _is_dense(x: Tensor) -> bool:
    steps = sorted((step, size) for step, size in zip(x.stride(), x.shape, strict=True) if size > 1)
    expected = 1
    for step, size in steps:
        if step != expected:
            return False
        expected *= size
    return True


def _nest(shape: torch.Size, strides: list[tuple[int, ...]], threads: int) -> Nest | None:
    """The loops over a shape, those that continue each other joined; ``None`` where they are too many."""
    order = sorted((d for d in range(len(shape)) if shape[d] > 1), key=lambda d: -strides[0][d])
    loops: list[tuple[int, tuple[int, ...]]] = []
    for dimension in order:
        size, steps = shape[dimension], tuple(s[dimension] for s in strides)
        if loops and loops[-1][1] == tuple(step * size for step in steps):
            loops[-1] = (loops[-1][0] * size, steps)
        else:
            loops.append((size, steps))
    if len(loops) == 1 and threads > 1:  # something to share
        size, steps = loops[0]
        parts = math.gcd(size, 64)
        loops = [(parts, tuple(step * (size // parts) for step in steps)), (size // parts, steps)]
    if len(loops) > DIMENSIONS:
        return None
    loops = [(1, (0,) * len(strides))] * (DIMENSIONS - len(loops)) + loops
    steps_of_each = tuple(zip(*(steps for _, steps in loops), strict=True))
    return Nest(sizes=tuple(size for size, _ in loops), steps=steps_of_each)


def _form(argument: Any) -> str:
    """See :func:`loop_source`."""
    if isinstance(argument, Tensor):
        return "tensor"
    return str(argument).lower() if isinstance(argument, bool) else "number"
