"""What a network costs on a board, for a population of allocations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.dataflow.cheapest_folding import cheapest_folding
from gfb_brevitas.dataflow.finn_folding import finn_folding
from gfb_brevitas.dataflow.from_layers import hardware_graph
from gfb_brevitas.dataflow.graph import HardwareGraph
from gfb_brevitas.dataflow.tables import RESOURCES, Choice, UnitTable, columns_of
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
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise ConfigurationError(f"`{name}` must be a finite number above zero; got {value!r}.")
        if self.folding not in ("cheapest", "finn", "none"):
            raise ConfigurationError(f'`folding` must be "cheapest", "finn" or "none"; got {self.folding!r}.')

    @property
    def parts(self) -> Board:
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
        latency_cycles: Clock cycles of one sample through the empty network, ``(P,)``: the sum along the
            longest path, as FINN reports it; an upper bound, since layers overlap.
    """

    resources: Resources
    layer_resources: FloatArray
    layer_cycles: FloatArray
    pe: FloatArray
    simd: FloatArray
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
    """

    graph: HardwareGraph
    target: Target
    most_bits: NDArray[np.int64]
    _tables: dict[int | None, list[UnitTable]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.units: tuple[Unit, ...] = units_of(self.graph)
        columns = columns_of(self.graph)
        self._columns = [
            np.unique(np.concatenate([columns[position] for position in unit.positions]))
            for unit in self.units
        ]

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
        return cls(graph, target, np.array([info.max_bits for info in profile], dtype=np.int64))

    def cost(self, bits: Bits) -> PopulationCost:
        """Costs of candidates: bits ``(P, quantizers)``.

        FINN's folding is chosen twice where a layer misses the frame rate: the second time for what the
        slowest layer reaches, so that the others are not faster than that.
        """
        bits = np.asarray(bits, dtype=np.int64)
        wanted = self.target.target_cycles
        found = self._rows(bits, wanted)
        if self.target.folding == "finn" and wanted is not None:
            slowest = self._layer_values(found, "cycles").max(axis=1)
            for missed in np.unique(slowest[slowest > wanted]):
                again = slowest == missed
                for own, other in zip(found, self._rows(bits[again], int(missed)), strict=True):
                    own[again] = other
        return self._population_cost(found)

    def _rows(self, bits: Bits, target_cycles: int | None) -> list[FloatArray]:
        tables = self._tables.get(target_cycles)
        if tables is None:
            tables = self._tables[target_cycles] = self._make_tables(target_cycles)
        kept: list[list[Widths]] = []

        def widths() -> list[Widths]:
            if not kept:
                kept.append(self.graph.widths(bits))
            return kept[0]

        return [table.look_up(bits, widths) for table in tables]

    def _make_tables(self, target_cycles: int | None) -> list[UnitTable]:
        parts = self.target.parts
        choice: Choice = partial(_choose, rule=self.target.folding, target_cycles=target_cycles, parts=parts)
        return [
            UnitTable(self.graph, unit, columns, self.most_bits[columns], choice, parts.dsp_block)
            for unit, columns in zip(self.units, self._columns, strict=True)
        ]

    def _layer_values(self, found: list[FloatArray], what: Literal["cycles", "pe", "simd"]) -> FloatArray:
        """Values per layer, ``(P, layers)``."""
        values = np.ones((len(found[0]), len(self.graph)))
        for unit, row in zip(self.units, found, strict=True):
            if what == "cycles":
                values[:, unit.positions] = row[:, RESOURCES + 2 :]
            else:
                values[:, unit.position] = row[:, RESOURCES + ("pe", "simd").index(what)]
                if unit.window is not None and what == "simd":
                    values[:, unit.window_position] = row[:, RESOURCES]
        return values

    def _population_cost(self, found: list[FloatArray]) -> PopulationCost:
        per_unit = np.stack([row[:, :RESOURCES] for row in found], axis=1)
        lut, bram_18k, uram, dsp = per_unit.sum(axis=1).T
        cycles = self._layer_values(found, "cycles")
        return PopulationCost(
            resources=Resources(lut=lut, bram_18k=bram_18k, uram=uram, dsp=dsp),
            layer_resources=per_unit,
            layer_cycles=cycles,
            pe=self._layer_values(found, "pe"),
            simd=self._layer_values(found, "simd"),
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
