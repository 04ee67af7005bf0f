"""Whether an operator only moves, selects or pads values: found out by what it does, not by its name.

An operator's results are looked at twice. Every value of a result must be a value of an operand (or its
negative, zero, or a number that the operator was given), first for the operands that it really had, then for
operands whose values lie on curves of random curvature: no sum, mean or multiple of such values is one of
them. Where both hold, the result consists of values of the operands that the second look names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

_SAMPLED = 1024
"""Values of a result that are looked up among its real operands, besides the smallest and the largest."""
_CHUNK = 1 << 20
_MOST = 1 << 24
"""Values of a result that are looked up among marked operands; of larger ones evenly spaced ones."""


@dataclass(frozen=True)
class _Ramp:
    """Values that tell their position: lo + (hi - lo) (u + a u (1 - u)) with u = (position + 1/2) / count."""

    lo: float
    hi: float
    curvature: float
    count: int

    def at(self, positions: Tensor) -> Tensor:
        u = (positions + 0.5) / self.count
        return self.lo + (self.hi - self.lo) * (u + self.curvature * u * (1 - u))

    def position(self, values: Tensor) -> Tensor:
        """Where a value stands, or would stand."""
        share = (values - self.lo) / (self.hi - self.lo)
        b = 1 + self.curvature
        u = (b - (b * b - 4 * self.curvature * share).clamp(min=0).sqrt()) / (2 * self.curvature)
        return (u * self.count).floor().clamp(0, self.count - 1)

    def shuffled(self, device: torch.device) -> Tensor:
        """All values, in an order without order."""
        stride = int(self.count * 0.6180339887) + int(97 * self.curvature)
        while gcd(stride, self.count) > 1:
            stride += 1
        positions = torch.arange(self.count, dtype=torch.int64, device=_with_doubles(device))
        return self.at((positions * stride % self.count).double())

    def holds(self, values: Tensor) -> Tensor:
        """Which values are on the ramp, rounded as their format rounds."""
        wide = values.double()
        near = self.position(wide)
        found = torch.zeros_like(wide, dtype=torch.bool)
        for step in (-1, 0, 1):
            found |= self.at((near + step).clamp(0, self.count - 1)).to(values.dtype) == values
        return found


Sources = tuple[Tensor, ...]
"""The operands that the values of a result are taken from; none where it holds zeros and constants alone."""


def sources_of_results(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out: Any,
    is_marked: Callable[[Tensor], bool],
) -> list[Sources | None]:
    """Per result of a call its sources, ``None`` for one that is computed; see :func:`results_of`.

    Args:
        func: The operator; it is called again.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: Its results; ``None`` for an operator that writes into its operands and has not done so yet: the
            first look is then left out.
        is_marked: Whether an operand's values have a mark; unmarked zeros are no source.
    """
    leaves = {id(t): t for t in results_of((args, kwargs)) if t.dim() > 0}
    operands = [t for t in leaves.values() if is_marked(t) or bool(t.any())]
    nothing: list[Sources | None] = [None] * len(results_of(out))
    constants = _constants(args, kwargs, max((abs(end) for o in operands for end in _range(o)), default=0.0))
    if out is not None and not any(_is_likely(r, operands, constants) for r in results_of(out)):
        return nothing
    for dtype in (torch.float64, torch.float32):
        try:
            return _probe(func, args, kwargs, operands, constants, dtype)
        except Exception:  # an operator that takes no such values shows nothing
            continue
    return nothing


def results_of(out: Any) -> list[Tensor]:
    """The tensors of floating point among the results of a call that hold values."""
    return [t for t in tree_leaves(out) if isinstance(t, Tensor) and _holds_values(t)]


def _holds_values(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.is_nested
    return plain and tensor.is_floating_point() and tensor.numel() > 0


def _constants(args: Sequence[Any], kwargs: Mapping[str, Any], largest: float) -> list[float]:
    """Zero, and numbers that the operator was given, of the operands' magnitude."""
    leaves = tree_leaves((args, kwargs))
    numbers: list[Any] = [n for n in leaves if isinstance(n, Real) and not isinstance(n, bool)]
    numbers += [t for t in leaves if isinstance(t, Tensor) and t.dim() == 0 and _holds_values(t)]
    return [0.0, *(float(n) for n in numbers if abs(float(n)) <= largest)]


def _is_likely(result: Tensor, operands: Sequence[Tensor], constants: Sequence[float]) -> bool:
    """Whether the extremes and some values of a result are values of its operands."""
    values = result.detach().abs().flatten()
    extremes = torch.stack([values.amin(), values.amax()])
    looked = torch.cat([extremes, values[:: max(1, len(values) // _SAMPLED)]]).unique()
    found = torch.zeros_like(looked, dtype=torch.bool)
    for constant in constants:
        found |= looked == abs(constant)
    for operand in operands:
        theirs = operand.detach().abs().flatten().to(looked.dtype)
        places = torch.searchsorted(looked, theirs).clamp(max=len(looked) - 1)
        found[places[looked[places] == theirs]] = True
    return bool(found.all())


def _probe(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    operands: Sequence[Tensor],
    constants: Sequence[float],
    dtype: torch.dtype,
) -> list[Sources | None]:
    """Call the operator on operands whose values tell their position, and look where its results are from."""
    curvatures = torch.rand(len(operands), generator=torch.Generator().manual_seed(0)).tolist()
    ramps = [_ramp(o, 0.2 + 0.6 * c) for o, c in zip(operands, curvatures, strict=True)]
    pairs = zip(operands, ramps, strict=True)
    probes = {id(o): r.shuffled(o.device).to(o.device, dtype).reshape(o.shape) for o, r in pairs}

    def replaced(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in probes:
            return probes[id(leaf)]
        # The others stay as they are, but for the format of their numbers; what is written into, is copied.
        return leaf.to(dtype, copy=True) if leaf.is_floating_point() else leaf.clone()

    out = func(*tree_map(replaced, tuple(args)), **tree_map(replaced, dict(kwargs)))
    found: list[Sources | None] = []
    for result in results_of(out):
        which = _sources(result, ramps, constants)
        found.append(None if which is None else tuple(operands[i] for i in which))
    return found


def _with_doubles(device: torch.device) -> torch.device:
    """Where numbers of 64 bits can be computed."""
    return torch.device("cpu") if device.type == "mps" else device


def _range(operand: Tensor) -> tuple[float, float]:
    """The smallest and the largest finite value; memory that is not written yet may hold others."""
    values = operand.detach()
    finite = values[values.isfinite()]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)


def _ramp(operand: Tensor, curvature: float) -> _Ramp:
    lo, hi = _range(operand)
    if lo == hi:
        lo, hi = min(lo / 2, hi), max(hi / 2, hi) if hi else 1.0
    return _Ramp(lo, hi, curvature, operand.numel())


def _sources(result: Tensor, ramps: Sequence[_Ramp], constants: Sequence[float]) -> list[int] | None:
    """Which ramps hold the values of a result; ``None`` if there are values that none of them holds."""
    which: set[int] = set()
    values = result.detach().flatten().to(_with_doubles(result.device))
    for chunk in values[:: 1 + len(values) // _MOST].split(_CHUNK):
        known = torch.zeros_like(chunk, dtype=torch.bool)
        for constant in constants:
            known |= chunk.abs() == abs(constant)
        for i, ramp in enumerate(ramps):
            held = ramp.holds(chunk) | ramp.holds(-chunk)
            if bool((held & ~known).any()):
                which.add(i)
                known |= held
        if not bool(known.all()):
            return None
    return sorted(which)
