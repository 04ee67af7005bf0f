"""BatchNorm over the samples of all processes.

Computes what BatchNorm computes of the whole batch (Ioffe and Szegedy, 2015, arXiv:1502.03167) from parts of
it. PyTorch's own SyncBatchNorm exists for CUDA only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from gfb_brevitas.distributed.world import World


def uses_batch_statistics(module: _BatchNorm) -> bool:
    """Whether a BatchNorm normalizes with the statistics of the batch at present."""
    return module.training or module.running_mean is None or module.running_var is None


def whole_batch_norm(module: _BatchNorm, x: Tensor, world: World) -> Tensor:
    """What a BatchNorm makes of this process's samples, with the statistics of all samples.

    Running statistics are updated as the module would with the whole batch.

    Args:
        module: The BatchNorm; one that uses the batch's statistics.
        x: Shape ``(samples, channels, ...)``.
        world: The processes.
    """
    x = getattr(x, "value", x)  # of a quant tensor
    module._check_input_dim(x)
    mean, variance, count = _statistics(x.detach(), world)
    if module.training and module.track_running_stats:
        _update(module, mean, variance, count)
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean, variance = mean.to(dtype), variance.to(dtype)
    normalized: Tensor = _WholeBatchNorm.apply(  # type: ignore[no-untyped-call]
        x, module.weight, module.bias, mean, variance, count, module.eps, world
    )
    return normalized


def _statistics(x: Tensor, world: World) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of every channel, in double precision, and the values per channel."""
    count = x.numel() / x.shape[1]
    mean, variance = (part.double() for part in torch.batch_norm_update_stats(x, None, None, 0.0))
    sums = torch.cat([mean * count, (variance + mean.square()) * count, mean.new_tensor([count])])
    sums = world.sum("statistics of BatchNorm", sums)
    total = float(sums[-1])
    mean, square = sums[:-1].div(total).chunk(2)
    return mean, (square - mean.square()).clamp_min(0.0), total


@torch.no_grad()
def _update(module: _BatchNorm, mean: Tensor, variance: Tensor, count: float) -> None:
    factor = 0.0 if module.momentum is None else module.momentum
    if module.num_batches_tracked is not None:
        module.num_batches_tracked.add_(1)
        if module.momentum is None:
            factor = 1.0 / float(module.num_batches_tracked)
    unbiased = variance * (count / (count - 1))
    for running, now in ((module.running_mean, mean), (module.running_var, unbiased)):
        if running is not None:
            running.lerp_(now.to(running.dtype), factor)


class _WholeBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
        world: World,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps, ctx.world = count, eps, world
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # The gradient with fixed statistics, and on the way the sums that the statistics' own need.
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = ctx.world.sum("gradients of BatchNorm", torch.cat([to_weight, to_bias])) / ctx.count
        of_normalized, of_one = sums.chunk(2)
        deviation = (variance + ctx.eps).sqrt()
        gain = deviation.reciprocal() if weight is None else weight / deviation
        slope = gain * of_normalized / deviation
        shape = (1, -1, *(1,) * (x.dim() - 2))
        to_x.addcmul_(x, slope.view(shape).to(x.dtype), value=-1)
        to_x.sub_((gain * of_one - slope * mean).view(shape))
        if weight is None:
            to_weight, to_bias = None, None
        return to_x, to_weight, to_bias, None, None, None, None, None
