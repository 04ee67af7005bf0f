"""Bits per layer: every quantizer's width over the depth of the network, with its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gfb_brevitas.profile import QuantizerInfo
from gfb_integrations.plots.data.table import Cell, DataTable, counted, listed, number_text
from gfb_integrations.plots.data.widths import OfWidths


@dataclass(frozen=True, kw_only=True, eq=False)
class BitsPerLayer(OfWidths):
    """The widths in force."""

    def of_kind(self, kind: str) -> Iterator[tuple[int, QuantizerInfo]]:
        """Place and quantizer, for the quantizers of a kind."""
        return ((place, q) for place, q in enumerate(self.run.quantizers) if q.kind == kind)

    def tied_with(self, quantizer: QuantizerInfo) -> list[str]:
        """The quantizers that share its width."""
        same = (q.name for q in self.run.quantizers if q.tie_group == quantizer.tie_group)
        return [name for name in same if name != quantizer.name]

    def description(self) -> str:
        """The chart in words."""
        parts = [f"Bit widths of {counted(len(self.run.quantizers), 'quantizer')} in forward order."]
        for kind, noun in (("weight", "Weights"), ("activation", "Activations")):
            if sentence := self._spread(kind):
                parts.append(f"{noun} take {sentence}.")
        assert self.widths is not None
        widest = int(self.widths.max())
        names = [q.name for q, bits in zip(self.run.quantizers, self.widths, strict=True) if bits == widest]
        parts.append(f"Widest, at {counted(widest, 'bit')}: {listed(names, 3)}.")
        return " ".join(parts)

    def _spread(self, kind: str) -> str:
        places = [place for place, _ in self.of_kind(kind)]
        if not places or self.widths is None:
            return ""
        bits = self.widths[places]
        sizes = np.array([self.run.quantizers[place].elements for place in places], dtype=np.float64)
        mean = float(np.average(bits, weights=sizes)) if sizes.sum() else float(bits.mean())
        low, high = int(bits.min()), int(bits.max())
        span = counted(low, "bit") if low == high else f"{low} to {high} bits"
        return f"{span}, on average over the values {number_text(mean, 3)}"

    def table(self) -> DataTable:
        """The chart in numbers."""
        tied = [", ".join(self.tied_with(q)) for q in self.run.quantizers]
        rows: list[tuple[Cell, ...]] = []
        for place, q in enumerate(self.run.quantizers):
            width = None if self.widths is None else int(self.widths[place])
            row = (q.name, q.kind, width, f"{q.min_bits}–{q.max_bits}", q.elements, q.macs, q.layer)
            rows.append((*row, tied[place]) if any(tied) else row)
        columns = ("quantizer", "kind", "bits", "range", "elements", "MACs", "layer")
        return DataTable(columns=(*columns, "tied with") if any(tied) else columns, rows=tuple(rows))
