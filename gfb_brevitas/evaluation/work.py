"""How much work an evaluation is, counted and not timed: every process, and every resume, counts the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one evaluation of a loss takes.

    Attributes:
        operations: Calls of PyTorch's operators.
        numbers: Numbers that they write.
        multiplications: Multiply-accumulates of convolutions and matrix products.
    """

    operations: int
    numbers: int
    multiplications: int


def work_of(evaluate: Callable[[], Any]) -> Work:
    """The work of a function, which is called once."""
    counter = _Counter()
    with counter:
        evaluate()
    return Work(
        operations=counter.operations,
        numbers=counter.numbers,
        multiplications=counter.multiplications,
    )


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.numbers = self.multiplications = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        self.numbers += sum(
            leaf.numel() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)
        )
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.multiplications += int(formula(*args, **(kwargs or {}), out_val=result)) // 2
        return result
