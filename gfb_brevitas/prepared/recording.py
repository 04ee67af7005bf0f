"""A captured graph as it was recorded: the yardstick that a prepared program is held against, value by value.

Comparing the results of two programs says little: rounding noise of the first layer flips single values to
the next level, and a deep network makes much of that, above all with statistics of the batch. So every value
that a program computes is compared with what the recorded operations make of *the program's own* values
before it. Then noise is that of a few operations, and a missing layer, a stale constant or one that is off
by a percent stands out by orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from gfb_brevitas.prepared.capture import Captured
from gfb_brevitas.prepared.dependencies import ORIGIN
from gfb_brevitas.prepared.leaf_operators import QUANTIZE, SCALE, WIDTH
from gfb_brevitas.prepared.prepare import allow_any_layout
from gfb_brevitas.prepared.site_values import SiteValues, WidthInForce

TOLERANCE = 1e-4
"""Largest difference of a value, as a share of its size and of the root mean square of its tensor."""
TOLERANCE_IN_ROUNDINGS = 64
"""The same for types of lower precision, in units of their rounding."""
TF32_ROUNDING, TF32_TOLERANCE = 2.0**-11, 2.0**-9
"""Of convolutions on CUDA in PyTorch's default setting, which keep eleven bits of their operands."""
NOISE_IN_ROUNDINGS = 32
"""Where values differ by more, operations may be ill-conditioned. The recorded ones are then repeated with
relative noise of this many roundings on all values."""
NOISE_REPEATS = 3
LEVEL = 1e-3
"""Distance from a level, in steps, that counts as being on it."""
FREE_OF = 1000
"""One value in so many may differ, two at most: a quantizer inside of what is fused flips now and then."""
TIMES_NOISE = 4


@dataclass(frozen=True)
class Difference:
    """A value that a program computes otherwise than the model.

    Attributes:
        operation: What computes it, as recorded.
        differing: How many of its numbers differ.
        numbers: How many numbers it has.
    """

    operation: str
    differing: int
    numbers: int

    def __str__(self) -> str:
        return f"{self.operation} ({self.differing:,} of {self.numbers:,} values)"


class Recording:
    """Runs a captured graph operation by operation.

    Args:
        captured: The graph, which is copied before passes change it; its nodes get numbers (``ORIGIN``).
    """

    def __init__(self, captured: Captured) -> None:
        for number, node in enumerate(captured.graph.graph.nodes):
            node.meta[ORIGIN] = number
        graph = fx.Graph()
        graph.output(graph.graph_copy(captured.graph.graph, {}))
        allow_any_layout(graph)
        self._module = fx.GraphModule(captured.graph, graph)
        self._sites = captured.sites

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the model makes of the tensors of a call."""
        results: list[Tensor] = _Following(self._module, self._sites).run(*tensors)
        return results

    def with_noise(self, tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
        """The same with relative noise of the size of rounding on every value on the way.

        Noise on the inputs alone would say too little: the first quantizer rounds it away.
        """
        noisy = _Noisy(self._module, self._sites, seed, roundings=2)
        results: list[Tensor] = noisy.run(*tensors)
        return results

    def differences(
        self, tensors: Sequence[Tensor], found: Mapping[int, Sequence[Tensor]]
    ) -> list[Difference]:
        """Where the values of a program are not what recorded operations make of those before.

        Args:
            tensors: The inputs.
            found: The program's values, by the numbers of recorded operations.
        """
        following = _Following(self._module, self._sites, found)
        following.run(*tensors)
        if not following.suspects:
            return []
        noise = dict.fromkeys(following.suspects, 0)
        for seed in range(NOISE_REPEATS):
            noisy = _Noisy(self._module, self._sites, seed, NOISE_IN_ROUNDINGS, found, following.suspects)
            noisy.run(*tensors)
            noise = {number: max(count, noisy.moved.get(number, 0)) for number, count in noise.items()}
        return [
            suspect.difference
            for number, suspect in following.suspects.items()
            if suspect.difference.differing > suspect.free + TIMES_NOISE * noise[number]
        ]


@dataclass
class _Expected:
    """What recorded operations make of values."""

    value: Tensor

    def differing(self, other: Tensor) -> int:
        """How many numbers of another value are not this one's, up to rounding."""
        value = self.value
        if value.shape != other.shape or value.dtype != other.dtype:
            return max(1, value.numel(), other.numel())
        if value.data_ptr() == other.data_ptr() and value.stride() == other.stride():
            return 0
        return int(self._wrong(other).sum())

    def _wrong(self, other: Tensor) -> Tensor:
        if not self.value.is_floating_point():
            return other != self.value
        same = (other == self.value) | (other.isnan() & self.value.isnan())
        return ~(same | ((other - self.value).abs() <= _margin(self.value)))


@dataclass
class _ExpectedLevels(_Expected):
    """Rounded values: what lies on the border of two levels may be on either.

    Attributes:
        unrounded: What a quantizer rounds.
        step: Distance of its levels, of a shape that broadcasts.
        low, high: Its first and last level.
    """

    unrounded: Tensor
    step: Tensor
    low: Tensor
    high: Tensor

    def _wrong(self, other: Tensor) -> Tensor:
        wrong = super()._wrong(other)
        if not bool(wrong.any()):
            return wrong
        margin = _margin(self.unrounded)
        levels = (other - self.low) / self.step
        is_level = (levels - levels.round()).abs() <= LEVEL
        within = (other >= self.low - margin) & (other <= self.high + margin)
        near = (other - self.unrounded.clamp(self.low, self.high)).abs() <= self.step / 2 + margin
        return wrong & ~(is_level & within & near)


@dataclass
class _Suspect:
    expected: _Expected
    difference: Difference
    free: int


class _Following(fx.Interpreter):
    """Runs recorded operations on the values that a program found, where it found some."""

    def __init__(
        self,
        module: fx.GraphModule,
        sites: Sequence[WidthInForce],
        found: Mapping[int, Sequence[Tensor]] | None = None,
    ) -> None:
        super().__init__(module)
        # With numbers of their own: a program's may be those of former weights.
        self._sites = [SiteValues(s.quantizer, s.index) if isinstance(s, SiteValues) else s for s in sites]
        self._found = {} if found is None else found
        self.suspects: dict[int, _Suspect] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node."""
        value = super().run_node(n)
        found = self._found.get(n.meta.get(ORIGIN, -1), ())
        if not found or not isinstance(value, Tensor):
            return value
        expected = self._expected(n, value)
        differing = max(map(expected.differing, found))
        free = min(2, value.numel() // FREE_OF)
        if differing > free:
            name = "" if not callable(n.target) else str(n.target).removesuffix(".default")
            self.suspects[n.meta[ORIGIN]] = _Suspect(
                expected, Difference(f"{n.name} ({name})", differing, value.numel()), free
            )
        return found[0]

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value of an operation."""
        if target in (QUANTIZE, SCALE, WIDTH):
            site = self._sites[args[1]]
            if target is WIDTH or not isinstance(site, SiteValues):
                return site.width()
            return site.quantized(args[0]) if target is QUANTIZE else site.scale()
        return super().call_function(target, args, kwargs)

    def _expected(self, node: fx.Node, value: Tensor) -> _Expected:
        site = self._sites[node.args[1]] if node.target is QUANTIZE else None  # type: ignore[index]
        if not isinstance(site, SiteValues):
            return _Expected(value)
        unrounded, _ = self.fetch_args_kwargs_from_env(node)[0]
        scale = site.scale()
        if site.is_bipolar():
            return _ExpectedLevels(value, unrounded, 2 * scale, -scale, scale)
        return _ExpectedLevels(value, unrounded, scale, site.low() * scale, site.high() * scale)


class _Noisy(_Following):
    """The same with noise on all values, as much as many roundings make."""

    def __init__(
        self,
        module: fx.GraphModule,
        sites: Sequence[WidthInForce],
        seed: int,
        roundings: float,
        found: Mapping[int, Sequence[Tensor]] | None = None,
        suspects: Mapping[int, _Suspect] | None = None,
    ) -> None:
        super().__init__(module, sites, found)
        self._watched, self._seed, self._roundings = suspects or {}, seed, roundings
        self.moved: dict[int, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node, with noise."""
        value = fx.Interpreter.run_node(self, n)
        number = n.meta.get(ORIGIN, -1)
        if number in self._watched and isinstance(value, Tensor):
            self.moved[number] = self._watched[number].expected.differing(value)
        found = self._found.get(number, ())
        self._seed += NOISE_REPEATS
        return self._shaken(found[0] if found else value)

    def _shaken(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
            return value
        generator = torch.Generator(value.device).manual_seed(self._seed)
        noise = torch.rand(value.shape, generator=generator, device=value.device, dtype=torch.float32)
        amplitude = self._roundings * _rounding(value)
        return torch.empty_like(value).copy_(value * (1 + amplitude * (2 * noise - 1)))


def _margin(value: Tensor) -> Tensor:
    share = TF32_TOLERANCE if _has_tf32(value) else max(TOLERANCE, TOLERANCE_IN_ROUNDINGS * _rounding(value))
    return share * (_root_mean_square(value) + value.abs())


def _rounding(value: Tensor) -> float:
    return TF32_ROUNDING if _has_tf32(value) else min(torch.finfo(value.dtype).eps, 2.0**-7)


def _has_tf32(value: Tensor) -> bool:
    return value.is_cuda and value.dtype is torch.float32 and bool(torch.backends.cudnn.allow_tf32)


def _root_mean_square(value: Tensor) -> Tensor:
    finite = value if bool(value.isfinite().all()) else value[value.isfinite()]
    return finite.float().square().mean().sqrt().to(value.dtype) if finite.numel() else value.new_zeros(())
