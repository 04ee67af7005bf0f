"""Costs of every unit for every combination of the widths that it depends on.

A unit depends on the widths of one to three quantizers in most networks, so that all its costs fit a table:
pricing a candidate is then looking up one row per unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.dataflow.graph import HardwareGraph
from gfb_brevitas.dataflow.units import Unit
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import FloatArray
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import Folding, Widths
from gfb_brevitas.space import Bits

LARGEST_TABLE = 1 << 12
"""Rows up to which a unit has a table; one with more combinations is priced anew for every candidate."""

PRICED_AT_ONCE = 1 << 9
"""Rows that are priced in one go, which bounds the memory that comparing their foldings takes."""

Choice = Callable[[Unit, list[Widths]], Folding]
"""The folding of a unit for candidates, ``(P,)``, given the data types of its layers."""

RESOURCES = slice(0, 4)
"""Columns of a row that are LUT, BRAM_18K, URAM and DSP."""
PE, SIMD, PARALLEL_WINDOW, WINDOW_CYCLES, CYCLES = range(4, 9)
"""The other columns; the cycles of the sliding window are 0 where a unit has none."""
_COLUMNS = 9


class CostTables:
    """The costs of all units.

    Args:
        graph: The network.
        units: Its units.
        fewest_bits: Smallest width of each quantizer, ``(quantizers,)``.
        most_bits: Largest width of each quantizer, ``(quantizers,)``.
        choice: How units are folded.
        dsp_block: The part's DSP block.
    """

    def __init__(
        self,
        graph: HardwareGraph,
        units: Sequence[Unit],
        fewest_bits: NDArray[np.int64],
        most_bits: NDArray[np.int64],
        choice: Choice,
        dsp_block: DspBlock,
    ) -> None:
        self._graph, self._units, self._choice, self._dsp_block = graph, units, choice, dsp_block
        self._fewest, self._most = fewest_bits, most_bits
        self._columns = _unit_columns(graph, units)
        sizes = [prod(self._counts(columns)) for columns in self._columns]
        self._tabled = np.array([size <= LARGEST_TABLE for size in sizes])
        kept = np.where(self._tabled, sizes, 0)
        self._starts = np.cumsum(kept) - kept
        self._radices = self._radix_matrix()
        self._rows = np.concatenate([self._table(unit) for unit in range(len(units))])

    def look_up(self, bits: Bits) -> FloatArray:
        """The rows of candidates: bits ``(P, quantizers)`` to ``(P, units, columns)``."""
        tabled = self._tabled & ((bits >= self._fewest) & (bits <= self._most)).all()
        if tabled.all():
            found: FloatArray = self._rows[self._places(bits)]
            return found
        found = np.empty((len(bits), len(self._units), _COLUMNS))
        if tabled.any():
            found[:, tabled] = self._rows[self._places(bits)[:, tabled]]
        for unit in np.flatnonzero(~tabled).tolist():
            found[:, unit] = self._price(unit, bits)
        return found

    def _table(self, unit: int) -> FloatArray:
        """Rows for every combination of widths, ``(combinations, columns)``; none without a table."""
        if not self._tabled[unit]:
            return np.empty((0, _COLUMNS))
        columns = self._columns[unit]
        counts = self._counts(columns)
        size = int(np.prod(counts))
        bits = np.tile(self._most, (size, 1))
        bits[:, columns] = self._fewest[columns] + np.indices(counts).reshape(len(counts), size).T
        return self._price(unit, bits)

    def _places(self, bits: Bits) -> NDArray[np.int64]:
        places: NDArray[np.int64] = (bits - self._fewest) @ self._radices + self._starts
        return places

    def _price(self, unit: int, bits: Bits) -> FloatArray:
        """Rows of one unit, ``(P, columns)``."""
        parts = [bits[i : i + PRICED_AT_ONCE] for i in range(0, len(bits), PRICED_AT_ONCE)]
        return np.concatenate([self._price_some(self._units[unit], part) for part in parts])

    def _price_some(self, unit: Unit, bits: Bits) -> FloatArray:
        widths = self._graph.widths(bits, unit.positions)
        folding = self._choice(unit, widths)
        found = np.zeros((len(bits), _COLUMNS))
        found[:, RESOURCES] = np.floor(unit.resources(folding, widths, self._dsp_block).table())
        found[:, PE], found[:, SIMD] = folding.pe, folding.simd
        own = folding if unit.window is None else unit.window_folding(folding)
        found[:, PARALLEL_WINDOW] = own.parallel_window
        cycles = np.floor(unit.cycles(folding))
        found[:, CYCLES + 1 - cycles.shape[-1] : CYCLES + 1] = cycles
        return found

    def _counts(self, columns: NDArray[np.int64]) -> list[int]:
        """How many widths each of some quantizers can have."""
        counts: list[int] = (self._most[columns] - self._fewest[columns] + 1).tolist()
        return counts

    def _radix_matrix(self) -> NDArray[np.int64]:
        """What one bit more of a quantizer moves a unit's place by, ``(quantizers, units)``."""
        radices = np.zeros((len(self._most), len(self._units)), dtype=np.int64)
        for unit in np.flatnonzero(self._tabled).tolist():
            columns = self._columns[unit]
            counts = self._counts(columns)
            radices[columns, unit] = [int(np.prod(counts[i + 1 :])) for i in range(len(counts))]
        return radices


def _unit_columns(graph: HardwareGraph, units: Sequence[Unit]) -> list[NDArray[np.int64]]:
    """The quantizers whose widths decide the cost of each unit."""
    columns = columns_of(graph)
    return [
        np.array(
            sorted(frozenset().union(*(columns[position] for position in unit.positions))), dtype=np.int64
        )
        for unit in units
    ]


def columns_of(graph: HardwareGraph) -> list[frozenset[int]]:
    """The quantizers that decide the cost of each layer: of what it reads, its weights and its output."""
    streams: list[frozenset[int]] = []
    found = []
    for layer in graph:
        read = frozenset[int]().union(*(streams[i] for i in layer.inputs))
        weights, outputs = _column(layer.weights), _column(layer.outputs)
        if layer.outputs is not None:
            streams.append(outputs)
        else:
            streams.append(frozenset() if layer.computes_floats else read | weights)
        # Thresholds that are fused into a matrix product cost nothing, whatever they round to.
        ignored = isinstance(layer.node, MatrixVector) and layer.node.threshold_ram_style != "distributed"
        found.append(read | weights if ignored else read | weights | outputs)
    return found


def _column(quantizer: object) -> frozenset[int]:
    column = getattr(quantizer, "column", None)
    return frozenset() if column is None else frozenset({column})
