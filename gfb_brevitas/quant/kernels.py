"""The fake quantizer's forward and backward pass over large tensors, each one pass over memory.

All that an allocation changes enters as scalar tensors, so a new one never makes a kernel compile again.
Tensors are handed over as one row of numbers in the order that they have in memory: one kernel serves all
shapes and memory formats. With one scale per channel, tensors are quantized operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gfb_brevitas.quant.batchnorm_output import Affine, computed
from gfb_brevitas.quant.compiling import compiled
from gfb_brevitas.quant.integers import IntegerFormat

Gradients = tuple[Tensor, Tensor]


def is_worth_compiling(x: Tensor, scale: Tensor) -> bool:
    """Whether a kernel serves these tensors; otherwise they are quantized operation by operation."""
    is_plain = x.dtype == scale.dtype and x.layout == torch.strided
    return is_plain and scale.numel() == 1 and _round.will_compile(x)


def forward(x: Tensor, scale: Tensor, bits: int, integers: IntegerFormat) -> Tensor:
    """The nearest representable values; shape and memory format of ``x``."""
    quantize = _sign if integers.is_bipolar(bits) else _round
    values: Tensor = quantize(_row(x), scale.reshape(()), *_integer_range(scale, bits, integers))
    return values.as_strided(x.shape, x.stride())


def backward(
    gradient: Tensor,
    x: Tensor | Affine,
    clipping: Tensor,
    scale: Tensor,
    bits: int,
    integers: IntegerFormat,
    rectify: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients for ``x`` and the clipping value; in the shapes of both."""
    form = x.source if isinstance(x, Affine) else x
    low, high = (end * clipping.reshape(()) for end in integers.range_in_clippings(bits))
    numbers = [scale.reshape(()), *_integer_range(scale, bits, integers), low, high]
    kind = "sign" if integers.is_bipolar(bits) else "rectified" if rectify else "round"
    gradient = like(gradient, form)
    if isinstance(x, Affine):
        to_x, total = _AFFINE_BACKWARD[kind](*_by_channel(gradient, x), *numbers)
    else:
        to_x, total = _BACKWARD[kind](_row(gradient), _row(x), *numbers)
    to_clipping = (total / clipping.reshape(())).to(clipping.dtype)
    return to_x.as_strided(form.shape, form.stride()), to_clipping.reshape(clipping.shape)


def integer_range(dtype: torch.dtype, bits: int, integers: IntegerFormat) -> tuple[float, float]:
    """The smallest and largest integer at a width of ``bits``, or what ``dtype`` holds where that is less."""
    most = torch.finfo(dtype).max
    return max(integers.smallest(bits), -most), min(integers.largest(bits), most)


def serves_affine(x: Tensor) -> bool:
    """Whether :func:`backward` takes an :class:`Affine` for a tensor of this shape and memory format."""
    has_channels = x.dim() >= 2 and x.shape[1] > 1 and x.shape[0] > 1
    return has_channels and (x.is_contiguous() or (x.stride(1) == 1 and without_gaps(x) is x))


def without_gaps(x: Tensor) -> Tensor:
    """``x`` itself if its numbers lie next to each other in memory in any order, else a copy."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x


def like(x: Tensor, other: Tensor) -> Tensor:
    """``x`` in the memory format of ``other``, which has its shape; itself if it is."""
    strides = zip(x.shape, x.stride(), other.stride(), strict=True)
    if all(size == 1 or one == two for size, one, two in strides):
        return x
    return torch.empty_like(other).copy_(x)


def _row(x: Tensor) -> Tensor:
    return _in_memory_order(x, (x.numel(),), (1,))


def _by_channel(gradient: Tensor, x: Affine) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source, channels, inner = x.source, x.source.shape[1], x.source.stride(1)
    shape: tuple[int, ...] = (source.numel() // channels, channels)
    strides: tuple[int, ...] = (channels, 1)
    factor, offset = x.factor, x.offset
    if inner != 1:
        shape, strides = (source.shape[0], channels, inner), (channels * inner, inner, 1)
        factor, offset = factor[:, None], offset[:, None]
    rows = _in_memory_order(gradient, shape, strides), _in_memory_order(source, shape, strides)
    return *rows, factor, offset


def _in_memory_order(x: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    # Not a view: a kernel would be compiled for every shape of what it is a view of.
    return x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), shape, strides)


def _integer_range(scale: Tensor, bits: int, integers: IntegerFormat) -> tuple[Tensor, Tensor]:
    smallest, largest = integer_range(scale.dtype, bits, integers)
    return scale.new_full((), smallest), scale.new_full((), largest)


def _backward_of(
    quantize: Callable[..., Tensor], is_above: Callable[[Tensor, Tensor], Tensor]
) -> Callable[..., Gradients]:
    def backward_of_row(
        gradient: Tensor,
        x: Tensor,
        scale: Tensor,
        smallest: Tensor,
        largest: Tensor,
        low: Tensor,
        high: Tensor,
    ) -> Gradients:
        inside = (is_above(x, low) & (x <= high)).to(x.dtype)
        error = quantize(x, scale, smallest, largest) - x * inside
        # Millions of float32 values: added up in float32, the rounding errors show.
        return gradient * inside, (gradient * error).sum(dtype=torch.float64)

    return backward_of_row


def _of_affine(backward_of_row: Callable[..., Gradients]) -> Callable[..., Gradients]:
    def backward_of_affine(
        gradient: Tensor, source: Tensor, factor: Tensor, offset: Tensor, *numbers: Tensor
    ) -> Gradients:
        return backward_of_row(gradient, computed(source, factor, offset), *numbers)

    return backward_of_affine


def _rounded(x: Tensor, scale: Tensor, smallest: Tensor, largest: Tensor) -> Tensor:
    return (x / scale).round().clamp(smallest, largest) * scale


def _signed(x: Tensor, scale: Tensor, _smallest: Tensor, _largest: Tensor) -> Tensor:
    return torch.where(x >= 0, scale, -scale)


_FORMULAS = {
    "round": _backward_of(_rounded, torch.ge),
    "rectified": _backward_of(_rounded, torch.gt),
    "sign": _backward_of(_signed, torch.ge),
}
_round, _sign = compiled(_rounded), compiled(_signed)
_BACKWARD = {kind: compiled(formula) for kind, formula in _FORMULAS.items()}
_AFFINE_BACKWARD = {kind: compiled(_of_affine(formula)) for kind, formula in _FORMULAS.items()}
