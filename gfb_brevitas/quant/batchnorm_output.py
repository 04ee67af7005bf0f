"""The output of a BatchNorm from its input, so that a backward pass need not keep both.

BatchNorm keeps its input for its own backward pass. A quantizer that follows it would keep its output too,
which is as much memory again. One factor and one offset per channel lead from one to the other [ours].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NODES = {"NativeBatchNormBackward0", "CudnnBatchNormBackward0"}


@dataclass(frozen=True)
class Affine:
    """A tensor as ``source * factor + offset``.

    Attributes:
        source: Shape ``(N, C, ...)``.
        factor: Shape ``(C,)``.
        offset: Shape ``(C,)``.
    """

    source: Tensor
    factor: Tensor
    offset: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Source, factor and offset."""
        return self.source, self.factor, self.offset


@torch.no_grad()
def batchnorm_output(x: Tensor) -> Affine | None:
    """What ``x`` can be computed from if it is the output of a BatchNorm that is being trained.

    Returns:
        How, with a source of the memory format of ``x``; ``None`` if ``x`` is something else.
    """
    node: Any = x.grad_fn
    if node is None or node.name() not in _NODES or _saved_tensors_are_intercepted():
        return None
    source, mean, bias = node._saved_input, node._saved_result1, _bias(node)
    has_same_form = source.stride() == x.stride() and source.dtype == x.dtype == mean.dtype
    if bias is None or node._saved_weight is None or not node._saved_training or not has_same_form:
        return None
    factor = node._saved_result2 * node._saved_weight
    affine = Affine(source, factor, torch.addcmul(bias, mean, factor, value=-1))
    return affine if x.is_cuda or _is_exact(x, affine) else None


def computed(source: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """``source * factor + offset`` rounded once, as PyTorch's BatchNorm does it on a CPU."""
    if source.is_cuda:
        return source * factor + offset
    return (source.double() * factor.double() + offset.double()).to(source.dtype)


def _is_exact(x: Tensor, affine: Affine) -> bool:
    # Not every processor rounds once. One sample tells, and costs next to nothing.
    shape = (-1, *(1,) * (x.dim() - 2))
    one = computed(affine.source[0], affine.factor.view(shape), affine.offset.view(shape))
    return torch.equal(one, x[0])


def _bias(node: Any) -> Tensor | None:
    # It is not kept for the backward pass, but its gradient goes to it.
    accumulate = node.next_functions[2][0]
    bias: Tensor | None = getattr(accumulate, "variable", None)
    return bias


def _saved_tensors_are_intercepted() -> bool:
    # Activation checkpointing and offloading: looking at what was saved would undo them.
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(True) is not None
