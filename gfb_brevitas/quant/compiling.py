"""Element-wise functions in one pass over memory, through torch.compile."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

SMALLEST_COMPILED = 1 << 16
"""Elements below which calling a compiled kernel costs more than it saves."""

_logger = logging.getLogger(__name__)


@cache
def compiler_available(device_type: str) -> bool:
    """Whether torch.compile can make kernels for a kind of device; says so once if it cannot."""
    if device_type == "cpu":
        found = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
        missing = "a C++ compiler (g++ or clang++)"
    else:
        from torch.utils._triton import has_triton

        found = has_triton()
        missing = "Triton"
    if not found:
        _logger.warning(
            "Element-wise operations on %s run one by one: torch.compile needs %s.", device_type, missing
        )
    return found


class CompiledFunction:
    """A function of tensors that is compiled when it first meets a large one.

    Small tensors, and machines without a compiler, get the function as it is. Which of the two runs
    depends on the arguments' sizes only, so a repeated run repeats its rounding errors too. One kernel
    serves all sizes, and numbers that change belong into scalar tensors.

    Args:
        function: Takes tensors and plain values. Must be made of operations that torch.compile can
            take as one graph.
        smallest: Elements of the largest argument from which on it is compiled.
    """

    def __init__(self, function: Callable[..., Any], smallest: int = SMALLEST_COMPILED) -> None:
        self._function = function
        self._smallest = smallest
        self._compiled: Callable[..., Any] | None = None
        update_wrapper(self, function)

    def will_compile(self, largest: Tensor) -> bool:
        """Whether a call whose largest argument is this one runs as a compiled kernel."""
        if largest.numel() < self._smallest or self._compiled is self._function:
            return False
        if torch.compiler.is_compiling():  # the whole model: it fuses what it can
            return False
        # Who watches single operations (tracing, capturing) is shown single operations.
        return _get_current_dispatch_mode() is None and compiler_available(largest.device.type)

    def __call__(self, *arguments: Any) -> Any:
        """The function's result."""
        largest = max((a for a in arguments if isinstance(a, Tensor)), key=Tensor.numel, default=None)
        if largest is None or not self.will_compile(largest):
            return self._function(*arguments)
        if self._compiled is None:
            options = _exact_division() if largest.is_cuda else None
            self._compiled = torch.compile(self._function, dynamic=True, fullgraph=True, options=options)
        try:
            return self._compiled(*arguments)
        except _limit_hit():
            # Enough kernels of this function for other ranks and layouts; those stay in use.
            return self._function(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().split("\n")[0]
            _logger.warning("%s runs uncompiled: %s", getattr(self, "__name__", "A function"), reason)
            self._compiled = self._function
            return self._function(*arguments)


def _limit_hit() -> tuple[type[Exception], ...]:
    # PyTorch has renamed it.
    names = ("FailOnRecompileLimitHit", "FailOnCacheLimitHit")
    return tuple(getattr(torch._dynamo.exc, name) for name in names if hasattr(torch._dynamo.exc, name))


def _exact_division() -> dict[str, Any]:
    # Triton divides approximately unless told otherwise; a quotient next to a half would round elsewhere.
    import torch._inductor.config as inductor

    name = "division_rounding"
    known = hasattr(getattr(inductor, "eager_numerics", None), name)
    return {f"eager_numerics.{name}": True} if known else {}


def compiled(function: Callable[..., Any]) -> CompiledFunction:
    """Decorator: make a :class:`CompiledFunction`."""
    return CompiledFunction(function)
