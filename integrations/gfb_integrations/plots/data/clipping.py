"""Learned clipping values a(b)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gfb_brevitas.profile import QuantizerKind
from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.data.table import DataTable, counted
from gfb_integrations.plots.data.widths import labels, widths_in_force


@dataclass(frozen=True, kw_only=True)
class ClippingCurve:
    """One quantizer's clipping value over its widths.

    Attributes:
        name: The quantizer.
        label: Its short name.
        kind: What it quantizes.
        depth: Its place in forward order, from 0.
        bits: Widths.
        values: Clipping value at each.
        chosen: The width in force, if it is among ``bits``.
    """

    name: str
    label: str
    kind: QuantizerKind
    depth: int
    bits: tuple[int, ...]
    values: tuple[float, ...]
    chosen: int | None

    @property
    def chosen_value(self) -> float | None:
        """The clipping value at the width in force."""
        return None if self.chosen is None else self.values[self.bits.index(self.chosen)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clipping:
    """All clipping curves.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def curves(self) -> tuple[ClippingCurve, ...]:
        """In forward order."""
        widths = widths_in_force(self.run)
        curves = []
        for place, (info, label) in enumerate(zip(self.run.quantizers, labels(self.run), strict=True)):
            values = (self.run.clipping or {}).get(info.name)
            if not values:
                continue
            bits = tuple(sorted(values))
            width = None if widths is None else int(widths[place])
            curves.append(
                ClippingCurve(
                    name=info.name,
                    label=label,
                    kind=info.kind,
                    depth=place,
                    bits=bits,
                    values=tuple(values[b] for b in bits),
                    chosen=width if width in bits else None,
                )
            )
        return tuple(curves)

    @property
    def kinds(self) -> tuple[QuantizerKind, ...]:
        """The kinds that there are curves of."""
        kinds: tuple[QuantizerKind, ...] = ("weight", "activation")
        return tuple(kind for kind in kinds if any(curve.kind == kind for curve in self.curves))

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        if self.run.clipping is None:
            return "Clipping values are written when the run has ended."
        return None if self.curves else "No quantizer has a learned clipping value."

    def description(self) -> str:
        """The chart in words."""
        rising = sum(curve.values[-1] > curve.values[0] for curve in self.curves)
        return (
            f"Clipping value a(b) of {counted(len(self.curves), 'quantizer')} at every width b, the mean "
            "where "
            f"there is one per channel; the symbol is at the width that was chosen. {rising} of "
            f"{len(self.curves)} rise with the width."
        )

    def table(self) -> DataTable:
        """The chart in numbers."""
        widths = sorted({b for curve in self.curves for b in curve.bits})
        rows = tuple(
            (
                curve.name,
                curve.chosen,
                *(dict(zip(curve.bits, curve.values, strict=True)).get(b) for b in widths),
            )
            for curve in self.curves
        )
        return DataTable(columns=("quantizer", "chosen", *(f"{b} bit" for b in widths)), rows=rows)
