"""Layers that are folded together, and what a folding of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from gfb_brevitas.dataflow.graph import HardwareGraph, HardwareLayer
from gfb_brevitas.hardware.boards import DspBlock
from gfb_brevitas.hardware.datatypes import BoolArray, DataTypes, FloatArray
from gfb_brevitas.hardware.mvau import MatrixVector
from gfb_brevitas.hardware.node import Folding, Widths
from gfb_brevitas.hardware.resources import Resources
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.hardware.streams import Pool
from gfb_brevitas.hardware.vvau import VectorVector


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One layer, or a depthwise sliding window with the layer that reads it.

    Such a window gives out as many channels at once as its reader takes, and whole windows where the reader
    takes several elements of one. FINN: ``transformation/fpgadataflow/set_folding.py``.

    Attributes:
        layer: The layer; of two, the reader.
        position: Its position in the graph.
        window: The depthwise sliding window in front of it.
        window_position: Its position.
    """

    layer: HardwareLayer
    position: int
    window: SlidingWindow | None = None
    window_position: int = -1

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of its layers in the graph."""
        return (self.position,) if self.window is None else (self.window_position, self.position)

    def window_folding(self, folding: Folding) -> Folding:
        """The folding of the window that goes with one of its reader."""
        return Folding(simd=folding.pe, parallel_window=folding.simd > 1)

    def cycles(self, folding: Folding) -> FloatArray:
        """Cycles of each of its layers, along the last axis."""
        own = self.layer.node.cycles(folding)
        if self.window is None:
            return np.asarray(own)[..., None]
        return np.stack(np.broadcast_arrays(self.window.cycles(self.window_folding(folding)), own), axis=-1)

    def resources(self, folding: Folding, widths: Sequence[Widths], dsp_block: DspBlock) -> Resources:
        """Resources of its layers together; ``widths`` as :attr:`positions`."""
        own = self.layer.node.resources(folding, widths[-1], dsp_block)
        if self.window is None:
            return own
        return own + self.window.resources(self.window_folding(folding), widths[0], dsp_block)

    def is_legal(self, folding: Folding, widths: Sequence[Widths], dsp_block: DspBlock) -> BoolArray:
        """Whether a folding can be built."""
        if isinstance(self.layer.node, MatrixVector):
            return self.layer.node.is_legal(folding, widths[-1], dsp_block)
        return np.ones(np.broadcast_shapes(folding.pe.shape, folding.simd.shape), dtype=np.bool_)


def units_of(graph: HardwareGraph) -> tuple[Unit, ...]:
    """The units of a graph, in its order."""
    windows = {
        layer.inputs[0]: position
        for position, layer in enumerate(graph)
        if isinstance(layer.node, (VectorVector, Pool)) and _is_depthwise_window(graph, layer.inputs)
    }
    units = []
    for position, layer in enumerate(graph):
        if position in windows:
            continue
        source = layer.inputs[0] if layer.inputs else -1
        window = graph.layers[source].node if windows.get(source) == position else None
        units.append(
            Unit(
                layer=layer,
                position=position,
                window=window if isinstance(window, SlidingWindow) else None,
                window_position=source,
            )
        )
    return tuple(units)


def _is_depthwise_window(graph: HardwareGraph, inputs: tuple[int, ...]) -> bool:
    node = graph.layers[inputs[0]].node if inputs else None
    return isinstance(node, SlidingWindow) and node.depthwise


def against_foldings(widths: Widths) -> Widths:
    """Widths of ``(P,)`` candidates as ``(P, 1)``, to be broadcast against foldings of ``(F,)``."""
    return Widths(**{item.name: _as_column(getattr(widths, item.name)) for item in fields(widths)})


def _as_column(value: Any) -> Any:
    if isinstance(value, DataTypes):
        return replace(
            value, bits=value.bits[..., None], low=value.low[..., None], high=value.high[..., None]
        )
    return None if value is None else np.asarray(value)[..., None]
