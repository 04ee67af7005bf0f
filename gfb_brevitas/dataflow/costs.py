"""FPGA resources, clock cycles and latency as costs of a search."""

from __future__ import annotations

import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from operator import add
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from gfb_brevitas.costs._parts import joined
from gfb_brevitas.costs.protocol import BoundCost, Joining
from gfb_brevitas.costs.registry import register_cost
from gfb_brevitas.dataflow.accelerator import Accelerator, PopulationCost, Target
from gfb_brevitas.dataflow.folded_layers import folded_layers
from gfb_brevitas.dataflow.graph import HardwareLayer
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector

Resource = Literal["lut", "bram_18k", "uram", "dsp"]
_RESOURCES: tuple[Resource, ...] = get_args(Resource)
_UNITS = {"lut": "LUTs", "bram_18k": "BRAM18s", "uram": "URAMs", "dsp": "DSPs"}


@dataclass(frozen=True, kw_only=True)
class _AcceleratorCost(ABC):
    """A number of the network as FINN builds it.

    Args:
        target: Board, frame rate and clock.
    """

    target: Target
    monotone: ClassVar[bool] = False
    joined_by: ClassVar[Joining] = "sum"
    advice: ClassVar[str] = "A larger board or a lower frame rate makes room, too."

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        Costs of one model and target share their work.

        Raises:
            ConfigurationError: If FINN has no hardware layer for something that the model does.
        """
        shared = _shared(profile, self.target)
        return lambda bits: self._value(shared.cost(bits))

    def parts(self, profile: ModelProfile, bits: Bits) -> dict[str, float]:
        """What each layer of the model takes; see :class:`~gfb_brevitas.costs.protocol.LayeredCost`."""
        shared = _shared(profile, self.target)
        names = [layer.name for layer in self._layers(shared.accelerator)]
        values = self._per_layer(shared.cost(bits[None]))
        join: Callable[[float, float], float] = max if self.joined_by == "largest" else add
        return joined(zip(names, values.tolist(), strict=True), join)

    def hardware(self, profile: ModelProfile, bits: Bits) -> dict[str, Any]:
        """Target and folded layers; see :class:`~gfb_brevitas.costs.protocol.HardwareCost`."""
        layers = folded_layers(_shared(profile, self.target).accelerator, bits)
        return {"target": asdict(self.target), "layers": [layer.to_dict() for layer in layers]}

    @abstractmethod
    def _value(self, cost: PopulationCost) -> Vector:
        """The cost of each candidate."""

    def _per_layer(self, cost: PopulationCost) -> Vector:
        """Values of the first candidate for :meth:`_layers`."""
        cycles: Vector = cost.layer_cycles[0]
        return cycles

    def _layers(self, accelerator: Accelerator) -> list[HardwareLayer]:
        return list(accelerator.graph)


@dataclass(frozen=True, kw_only=True)
class FpgaResource(_AcceleratorCost):
    """Look-up tables, block RAMs, UltraRAMs or DSP slices of the whole network.

    Computed from bit widths alone by FINN's formulas (:mod:`gfb_brevitas.hardware`); FIFOs and data width
    converters, which FINN adds later, are not in its estimates and not in these.

    Example:
        >>> cost = FpgaResource(resource="lut", target=Target(board="Pynq-Z1", fps=30_000))
        >>> cost.name, cost.unit
        ('lut', 'LUTs')

    Args:
        target: Board, frame rate and clock.
        resource: ``"lut"``, ``"bram_18k"``, ``"uram"`` or ``"dsp"``.

    Raises:
        ConfigurationError: If there is no such resource.
    """

    resource: Resource

    def __post_init__(self) -> None:
        if self.resource not in _RESOURCES:
            raise ConfigurationError(
                f"`resource` must be one of {', '.join(_RESOURCES)}; got {self.resource!r}."
            )

    @property
    def name(self) -> str:
        """The resource."""
        return self.resource

    @property
    def unit(self) -> str:
        """What is counted."""
        return _UNITS[self.resource]

    def _value(self, cost: PopulationCost) -> Vector:
        value: Vector = getattr(cost.resources, self.resource)
        return value

    def _per_layer(self, cost: PopulationCost) -> Vector:
        column: Vector = cost.layer_resources[0, :, _RESOURCES.index(self.resource)]
        return column

    def _layers(self, accelerator: Accelerator) -> list[HardwareLayer]:
        return [unit.layer for unit in accelerator.units]


@dataclass(frozen=True, kw_only=True)
class FpgaCycles(_AcceleratorCost):
    """Clock cycles per sample of the slowest layer: the clock frequency over it is the frame rate.

    Args:
        target: Board, frame rate and clock.
        name: Name in reports.
    """

    name: str = "cycles"
    unit: ClassVar[str] = "cycles"
    joined_by: ClassVar[Joining] = "largest"
    advice: ClassVar[str] = (
        "A faster clock or a smaller layer reaches a higher frame rate; a larger board does not."
    )

    def in_words(self, value: float) -> str:
        """Cycles with the frame rate that they come to."""
        rate = 1e6 * self.target.clock_mhz / max(value, 1.0)
        return f"{value:,.0f} cycles per sample ({rate:,.0f} samples/s at {self.target.clock_mhz:g} MHz)"

    def _value(self, cost: PopulationCost) -> Vector:
        return cost.cycles


@dataclass(frozen=True, kw_only=True)
class FpgaLatency(_AcceleratorCost):
    """Time that one sample takes through the empty network, in microseconds.

    The sum of the layers' cycles along the longest path, as FINN reports it; an upper bound, since layers
    overlap.

    Args:
        target: Board, frame rate and clock.
        name: Name in reports.
    """

    name: str = "latency"
    unit: ClassVar[str] = "us"
    joined_by: ClassVar[Joining] = "longest path"
    advice: ClassVar[str] = "A higher `fps` makes the layers more parallel, and the latency shorter."

    def _value(self, cost: PopulationCost) -> Vector:
        latency: Vector = cost.latency_cycles / self.target.clock_mhz
        return latency

    def _per_layer(self, cost: PopulationCost) -> Vector:
        return super()._per_layer(cost) / self.target.clock_mhz


@dataclass(eq=False)
class _Shared:
    """An accelerator that remembers the last population."""

    accelerator: Accelerator
    _last: tuple[Bits, PopulationCost] | None = field(default=None, init=False)

    def cost(self, bits: Bits) -> PopulationCost:
        last = self._last
        if last is None or not np.array_equal(last[0], bits):
            last = self._last = (np.array(bits), self.accelerator.cost(bits))
        return last[1]


_accelerators: dict[int, dict[Target, _Shared]] = {}  # by the ids of profiles, as long as they live


def _shared(profile: ModelProfile, target: Target) -> _Shared:
    if id(profile) not in _accelerators:
        weakref.finalize(profile, _accelerators.pop, id(profile), None)
    by_target = _accelerators.setdefault(id(profile), {})
    if target not in by_target:
        by_target[target] = _Shared(Accelerator.of(profile, target))
    return by_target[target]


def _by_options(cost: Callable[..., Any]) -> Callable[..., Any]:
    """A factory of a cost that takes the options of its target, and its own, one by one."""
    own = [p for name, p in inspect.signature(cost).parameters.items() if name not in ("target", "name")]
    targets = inspect.signature(Target).parameters

    def factory(**options: Any) -> Any:
        target = Target(**{name: value for name, value in options.items() if name in targets})
        return cost(target=target, **{name: v for name, v in options.items() if name not in targets})

    # What cost_from_name checks options against, and names in its errors.
    factory.__signature__ = inspect.Signature([*own, *targets.values()])  # type: ignore[attr-defined]
    return factory


register_cost("fpga_resource", _by_options(FpgaResource))
register_cost("fpga_cycles", _by_options(FpgaCycles))
register_cost("fpga_latency", _by_options(FpgaLatency))
