"""What every layer costs: the memory of its values and its bit operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gfb_brevitas.space import Bits, Vector
from gfb_integrations.plots.data.table import DataTable, counted, listed
from gfb_integrations.plots.data.widths import OfWidths


@dataclass(frozen=True, kw_only=True)
class LayerProducts:
    """The products of one layer: a weight quantizer and the widest of those that make its input.

    Attributes:
        layer: Name of the layer.
        macs: Multiply-accumulates per sample.
        weight: Place of the weight quantizer.
        inputs: Places of the quantizers of the input.
    """

    layer: str
    macs: int
    weight: int
    inputs: tuple[int, ...]

    def bit_operations(self, bits: Bits) -> int:
        """Multiply-accumulates times both widths."""
        return int(self.macs * bits[self.weight] * max(bits[place] for place in self.inputs))


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerCosts(OfWidths):
    """Costs by layer, of the widths in force."""

    def sizes(self, bits: Bits) -> Vector:
        """Bits of the values of every quantizer, shape ``(quantizers,)``."""
        elements = np.array([q.elements for q in self.run.quantizers], dtype=np.float64)
        sizes: Vector = elements * bits
        return sizes

    @cached_property
    def products(self) -> tuple[LayerProducts, ...]:
        """Layers with a searched weight and a searched input, in forward order."""
        inputs: dict[str, list[int]] = {}
        for place, q in enumerate(self.run.quantizers):
            if q.kind == "activation":
                for layer in q.feeds:
                    inputs.setdefault(layer, []).append(place)
        return tuple(
            LayerProducts(layer=q.feeds[0], macs=q.macs, weight=place, inputs=tuple(inputs[q.feeds[0]]))
            for place, q in enumerate(self.run.quantizers)
            if q.kind == "weight" and len(q.feeds) == 1 and q.macs and q.feeds[0] in inputs
        )

    def description(self) -> str:
        """The chart in words."""
        assert self.widths is not None
        parts = ["Bits of the values of every quantizer (elements times width; activations per sample)."]
        sizes = self.sizes(self.widths)
        for kind, noun in (("weight", "weights"), ("activation", "activations")):
            places = [place for place, q in enumerate(self.run.quantizers) if q.kind == kind]
            if places and sizes[places].sum():
                largest = max(places, key=lambda place: float(sizes[place]))
                share = sizes[largest] / sizes[places].sum()
                parts.append(f"Of the {noun}, {self.run.quantizers[largest].name} holds {share:.0%}.")
        if self.products:
            most = sorted(self.products, key=lambda p: -p.bit_operations(self.widths))  # type: ignore[arg-type]
            parts.append(
                f"Bit operations (multiply-accumulates times both widths) of {counted(len(most), 'layer')} "
                "whose "
                f"weights and input are searched; most in {listed([p.layer for p in most[:2]])}."
            )
        if self.reference is not None:
            parts.append(f"Dashes: the same at {self.reference_name} bits.")
        return " ".join(parts)

    def table(self) -> DataTable:
        """The chart in numbers."""
        assert self.widths is not None
        operations = {p.weight: p.bit_operations(self.widths) for p in self.products}
        before = None if self.reference is None else self.sizes(self.reference)
        sizes = self.sizes(self.widths)
        rows = []
        for place, q in enumerate(self.run.quantizers):
            then = None if before is None else int(before[place])
            rows.append((q.name, int(self.widths[place]), int(sizes[place]), then, operations.get(place)))
        columns = ("quantizer", "width", "bits of its values", f"at {self.reference_name}", "bit operations")
        return DataTable(columns=columns, rows=tuple(rows))
