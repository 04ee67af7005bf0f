"""Costs of a unit for every combination of the widths that it depends on.

A unit depends on the widths of two or three quantizers, so that all its costs fit a table: pricing a
candidate is then looking up one row per unit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.dataflow.graph import HardwareGraph
from gfb_brevitas.dataflow.units import Unit, rows
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import FloatArray
from gfb_brevitas.hardware.node import Folding, Widths
from gfb_brevitas.space import Bits

LARGEST_TABLE = 1 << 16
"""Rows up to which a table is kept; a unit with more combinations is priced anew for every candidate."""

Choice = Callable[[Unit, list[Widths]], Folding]
"""The folding of a unit for candidates, ``(P,)``, given the data types of its layers."""

RESOURCES = 4
"""Columns of a table's rows that are resources; then come PE, SIMD and the cycles of each layer."""


class UnitTable:
    """The costs of one unit, filled as candidates ask for them.

    Args:
        graph: The network.
        unit: The unit.
        columns: Quantizers whose widths decide the unit's data types.
        most_bits: Largest width of each of them.
        choice: How the unit is folded.
        dsp_block: The part's DSP block.
    """

    def __init__(
        self,
        graph: HardwareGraph,
        unit: Unit,
        columns: NDArray[np.int64],
        most_bits: NDArray[np.int64],
        choice: Choice,
        dsp_block: DspBlock,
    ) -> None:
        self._graph, self._unit, self._choice, self._dsp_block = graph, unit, choice, dsp_block
        self._columns = columns
        self._most_bits = most_bits
        sizes = (most_bits + 1).tolist()
        self._radices = np.array([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], dtype=np.int64)
        size = int(np.prod(sizes)) if sizes else 1
        width = RESOURCES + 2 + len(unit.positions)
        self._rows = np.full((size, width), np.nan) if size <= LARGEST_TABLE else None

    def look_up(self, bits: Bits, widths: Callable[[], list[Widths]]) -> FloatArray:
        """The rows of candidates.

        Args:
            bits: Bit widths, ``(P, quantizers)``.
            widths: Makes the data types of all layers of the network for ``bits``; called when needed.

        Returns:
            LUT, BRAM_18K, URAM, DSP, PE, SIMD and the cycles of each layer, ``(P, 6 + layers)``.
        """
        own = bits[:, self._columns]
        if self._rows is None or (own > self._most_bits).any():
            return self._price(widths(), len(bits))
        places = own @ self._radices
        found: FloatArray = self._rows[places]
        missing = np.isnan(found[:, 0])
        if missing.any():
            _, first = np.unique(places[missing], return_index=True)
            chosen = np.flatnonzero(missing)[first]
            picked = [rows(w, chosen) for w in widths()]
            self._rows[places[chosen]] = self._price(picked, len(chosen))
            found = self._rows[places]
        return found

    def _price(self, all_widths: list[Widths], count: int) -> FloatArray:
        widths = [all_widths[position] for position in self._unit.positions]
        folding = self._choice(self._unit, widths)
        folding = Folding(
            pe=np.broadcast_to(folding.pe, count),
            simd=np.broadcast_to(folding.simd, count),
            parallel_window=np.broadcast_to(folding.parallel_window, count),
        )
        resources = self._unit.resources(folding, widths, self._dsp_block).table()
        cycles = np.floor(self._unit.cycles(folding))
        return np.concatenate(
            [
                np.broadcast_to(np.floor(resources), (count, RESOURCES)),
                np.stack([folding.pe, folding.simd], axis=-1),
                np.broadcast_to(cycles, (count, cycles.shape[-1])),
            ],
            axis=-1,
        )


def columns_of(graph: HardwareGraph) -> list[NDArray[np.int64]]:
    """The quantizers that decide the data types of each layer: what it reads, its weights, its output."""
    streams: list[frozenset[int]] = []
    found = []
    for layer in graph:
        read = frozenset[int]().union(*(streams[i] for i in layer.inputs))
        weights = _column(layer.weights)
        outputs = _column(layer.outputs)
        if layer.outputs is not None:
            streams.append(outputs)
        else:
            streams.append(frozenset() if layer.computes_floats else read | weights)
        found.append(np.array(sorted(read | weights | outputs), dtype=np.int64))
    return found


def _column(quantizer: object) -> frozenset[int]:
    column = getattr(quantizer, "column", None)
    return frozenset() if column is None else frozenset({column})
