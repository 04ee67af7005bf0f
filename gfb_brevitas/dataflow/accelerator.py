"""What a network costs on a board, for a population of allocations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.dataflow.cheapest_folding import cheapest_folding
from gfb_brevitas.dataflow.finn_folding import finn_folding
from gfb_brevitas.dataflow.from_layers import hardware_graph
from gfb_brevitas.dataflow.graph import HardwareGraph
from gfb_brevitas.dataflow.tables import (
    CYCLES,
    PARALLEL_WINDOW,
    PE,
    RESOURCES,
    SIMD,
    WINDOW_CYCLES,
    Choice,
    CostTables,
)
from gfb_brevitas.dataflow.units import Unit, units_of
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.boards import Board, board
from gfb_brevitas.hardware.datatypes import FloatArray
from gfb_brevitas.hardware.node import Folding, Widths
from gfb_brevitas.hardware.resources import Resources
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector

FoldingRule = Literal["cheapest", "finn", "none"]
"""``"cheapest"``: the cheapest that reaches the frame rate [ours]; ``"finn"``: FINN's own choice; ``"none"``:
no parallelism, as FINN's without a frame rate."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What an accelerator is built for.

    Args:
        board: Name of the board, e.g. ``"Pynq-Z1"``; see :data:`gfb_brevitas.hardware.boards.BOARDS`.
        fps: Samples per second to reach.
        clock_mhz: Clock frequency.
        standalone_thresholds: Whether activations become layers of their own. Products of 4 bits and more
            are then made of DSP blocks instead of LUTs.
        folding: How the parallelism of the layers is chosen.

    Raises:
        ConfigurationError: If there is no such board, or a number is not valid.
    """

    board: str
    fps: float | None = None
    clock_mhz: float = 100.0
    standalone_thresholds: bool = False
    folding: FoldingRule = "cheapest"

    def __post_init__(self) -> None:
        board(self.board)
        for name in ("fps", "clock_mhz"):
            value = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 < value < math.inf):
                raise ConfigurationError(f"`{name}` must be a finite number above zero; got {value!r}.")
        if self.target_cycles == 0:
            raise ConfigurationError(
                f"`fps` must be at most {1e6 * self.clock_mhz:,.0f} at {self.clock_mhz:g} MHz, one sample "
                f"per clock cycle; got {self.fps:,.0f}."
            )
        if self.folding not in ("cheapest", "finn", "none"):
            raise ConfigurationError(f'`folding` must be "cheapest", "finn" or "none"; got {self.folding!r}.')

    @property
    def device(self) -> Board:
        """The board and what it has."""
        return board(self.board)

    @property
    def target_cycles(self) -> int | None:
        """Clock cycles per sample at the frame rate, rounded down as FINN does."""
        # FINN rounds the frame rate to a whole number first.
        return None if self.fps is None else int(10**9 / (1000.0 / self.clock_mhz) / math.ceil(self.fps))


@dataclass(frozen=True, kw_only=True, eq=False)
class PopulationCost:
    """What candidates cost.

    Attributes:
        resources: Totals per candidate, ``(P,)`` each.
        layer_resources: LUT, BRAM_18K, URAM and DSP per candidate and unit, ``(P, units, 4)``.
        layer_cycles: Clock cycles per sample of each layer, ``(P, layers)``.
        pe: PE of each layer, ``(P, layers)``; 1 where it has none.
        simd: SIMD of each layer, ``(P, layers)``; 1 where it has none.
        parallel_window: 1 where a sliding window gives out whole windows, else 0, ``(P, layers)``.
        latency_cycles: Clock cycles of one sample through the empty network, ``(P,)``: the sum along the
            longest path, as FINN reports it; an upper bound, since layers overlap.
    """

    resources: Resources
    layer_resources: FloatArray
    layer_cycles: FloatArray
    pe: FloatArray
    simd: FloatArray
    parallel_window: FloatArray
    latency_cycles: Vector

    @property
    def cycles(self) -> Vector:
        """Clock cycles per sample of the slowest layer, ``(P,)``."""
        slowest: Vector = self.layer_cycles.max(axis=1)
        return slowest


@dataclass(eq=False)
class Accelerator:
    """A network on a board.

    Example:
        >>> accelerator = Accelerator.of(
        ...     searchable.profile, Target(board="Pynq-Z1", fps=30_000)
        ... )  # doctest: +SKIP
        >>> accelerator.cost(
        ...     searchable.space.bits(searchable.allocation)[None]
        ... ).resources.lut  # doctest: +SKIP
        array([14210.])

    Attributes:
        graph: The hardware layers.
        target: The board and the frame rate.
        fewest_bits: Smallest width of each quantizer, ``(quantizers,)``.
        most_bits: Largest width of each quantizer, ``(quantizers,)``.
    """

    graph: HardwareGraph
    target: Target
    fewest_bits: NDArray[np.int64]
    most_bits: NDArray[np.int64]
    _tables: dict[int | None, CostTables] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.units: tuple[Unit, ...] = units_of(self.graph)
        self._own = np.array([unit.position for unit in self.units], dtype=np.int64)
        self._windowed = np.array([unit.window is not None for unit in self.units])
        self._windows = np.array([unit.window_position for unit in self.units])[self._windowed]

    @classmethod
    def of(cls, profile: ModelProfile, target: Target) -> Accelerator:
        """The accelerator of a searchable model.

        Raises:
            ConfigurationError: If FINN has no hardware layer for something that the model does.
        """
        if not len(profile.layers):
            raise ConfigurationError(
                "The profile holds no layers to build hardware from. Use that of make_searchable."
            )
        graph = hardware_graph(profile, standalone_thresholds=target.standalone_thresholds)
        fewest, most = ([getattr(info, name) for info in profile] for name in ("min_bits", "max_bits"))
        return cls(graph, target, np.array(fewest, dtype=np.int64), np.array(most, dtype=np.int64))

    def cost(self, bits: Bits) -> PopulationCost:
        """Costs of candidates: bits ``(P, quantizers)``.

        The folding is chosen twice where a layer misses the frame rate: the second time for what the slowest
        layer reaches, since the others need not be faster than that. FINN: ``set_folding.py``,
        two_pass_relaxation.
        """
        bits = np.asarray(bits, dtype=np.int64)
        wanted = self.target.target_cycles
        found = self._tables_for(wanted).look_up(bits)
        if wanted is not None and self.target.folding != "none":
            slowest = found[..., (WINDOW_CYCLES, CYCLES)].max(axis=(1, 2))
            for missed in np.unique(slowest[slowest > wanted]):
                again = slowest == missed
                found[again] = self._tables_for(int(missed)).look_up(bits[again])
        return self._population_cost(found)

    def _tables_for(self, target_cycles: int | None) -> CostTables:
        if target_cycles not in self._tables:
            parts = self.target.device
            choice: Choice = partial(
                _choose, rule=self.target.folding, target_cycles=target_cycles, parts=parts
            )
            self._tables[target_cycles] = CostTables(
                self.graph, self.units, self.fewest_bits, self.most_bits, choice, parts.dsp_block
            )
        return self._tables[target_cycles]

    def _per_layer(self, found: FloatArray, own: int, of_windows: int) -> FloatArray:
        """A column of the tables per layer, ``(P, layers)``."""
        values = np.ones((len(found), len(self.graph)))
        values[:, self._own] = found[..., own]
        values[:, self._windows] = found[:, self._windowed, of_windows]
        return values

    def _population_cost(self, found: FloatArray) -> PopulationCost:
        per_unit = found[..., RESOURCES]
        lut, bram_18k, uram, dsp = per_unit.sum(axis=1).T
        cycles = self._per_layer(found, CYCLES, WINDOW_CYCLES)
        # A depthwise window takes as many channels at once as its reader.
        simd = self._per_layer(found, SIMD, PE)
        pe = self._per_layer(found, PE, PE)
        pe[:, self._windows] = 1.0
        whole = self._per_layer(found, PARALLEL_WINDOW, PARALLEL_WINDOW)
        whole[:, self._own[self._windowed]] = 0.0
        return PopulationCost(
            resources=Resources(lut=lut, bram_18k=bram_18k, uram=uram, dsp=dsp),
            layer_resources=per_unit,
            layer_cycles=cycles,
            pe=pe,
            simd=simd,
            parallel_window=whole,
            latency_cycles=self._latency(cycles),
        )

    def _latency(self, cycles: FloatArray) -> Vector:
        reached: list[Vector] = []
        for position, layer in enumerate(self.graph):
            before = [reached[i] for i in layer.inputs]
            start = np.maximum.reduce(before) if before else np.zeros(len(cycles))
            reached.append(start + cycles[:, position])
        latest: Vector = np.maximum.reduce(reached)
        return latest


def _choose(
    unit: Unit, widths: list[Widths], *, rule: FoldingRule, target_cycles: int | None, parts: Board
) -> Folding:
    if rule == "none" or target_cycles is None:
        return Folding()
    if rule == "finn":
        return finn_folding(unit, widths, target_cycles, parts.dsp_block)
    return cheapest_folding(unit, widths, target_cycles, parts)
