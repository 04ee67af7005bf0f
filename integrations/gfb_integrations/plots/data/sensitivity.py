"""Which layers were most sensitive to their width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gfb_brevitas.search import RecordedRun
from gfb_brevitas.space import Bits, Vector
from gfb_integrations.plots.data.table import DataTable, listed
from gfb_integrations.plots.data.widths import labels, reference_widths, widths_in_force

_RIDGE = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """The last step's estimate of every quantizer and width, or what the candidates' losses tell.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def increases(self) -> Vector | None:
        """Expected increase of the loss, shape ``(quantizers, widths + 1)``; NaN outside of a range.

        Of the last step that made an estimate; ``None`` if none did.
        """
        tables = [step.sensitivity for step in self.run.candidates if step.sensitivity is not None]
        if not tables or len(tables[-1]) != len(self.run.quantizers):
            return None
        table = np.array(tables[-1], dtype=np.float64)
        widths = np.arange(table.shape[1])
        ranges = np.array([(q.min_bits, q.max_bits) for q in self.run.quantizers])
        outside = (widths < ranges[:, :1]) | (widths > ranges[:, 1:])
        table[outside] = np.nan
        return table

    @cached_property
    def scores(self) -> Vector:
        """What quantizers are ranked by, shape ``(quantizers,)``: larger is more sensitive.

        The increase at the reference widths; without an estimate the effect that a quantizer's width has
        on the loss among the candidates, see :meth:`_effects`.
        """
        if self.increases is None:
            return self._effects()
        return self.increases[np.arange(len(self.run.quantizers)), self.reference]

    @cached_property
    def reference(self) -> Bits:
        """The width at which quantizers are compared, one that all have if there is one."""
        found = reference_widths(self.run)
        if found is not None:
            return found
        chosen = widths_in_force(self.run)
        middle = 4 if chosen is None else round(float(np.mean(chosen)))
        return np.array([min(max(middle, q.min_bits), q.max_bits) for q in self.run.quantizers])

    @cached_property
    def widths(self) -> Bits | None:
        """The widths in force."""
        return widths_in_force(self.run)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Short names in forward order."""
        return labels(self.run)

    @cached_property
    def ranking(self) -> tuple[int, ...]:
        """Places of the quantizers whose width varied, the most sensitive first."""
        scores = np.where(np.isfinite(self.scores), self.scores, -np.inf)
        return tuple(int(place) for place in np.argsort(-scores, kind="stable") if np.isfinite(scores[place]))

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        if not self.run.candidates:
            return "No candidate was evaluated."
        return None if self.ranking else "The candidates do not tell the quantizers apart."

    def description(self) -> str:
        """The chart in words."""
        names = [self.run.quantizers[place].name for place in self.ranking]
        if self.increases is not None:
            reference = sorted({int(bits) for bits in self.reference})
            how = (
                "Expected increase of the loss per quantizer and width, estimated from gradients at the "
                "start of "
                "the last step that made an estimate (squared gradients times squared rounding errors; up "
                "to a "
                "factor common to all)."
            )
            at = f" when compared at {' or '.join(map(str, reference))} bits"
        else:
            how = (
                "How much smaller the loss was among the candidates of a step where a quantizer was wider: "
                "the coefficients of a ridge regression of the loss's rank on log2 of all widths. The search "
                "made no estimate of its own. With few candidates this is a hint, not a measurement."
            )
            at = ""
        return f"{how} Most sensitive{at}: {listed(names[:5])}."

    def table(self) -> DataTable:
        """The chart in numbers."""
        quantizers = self.run.quantizers
        if self.increases is None:
            rows: list[tuple[str | float | None, ...]] = [
                (quantizers[place].name, float(self.scores[place])) for place in self.ranking
            ]
            return DataTable(columns=("quantizer", "effect of its width"), rows=tuple(rows))
        widths = [b for b in range(1, self.increases.shape[1]) if np.isfinite(self.increases[:, b]).any()]
        rows = [
            (quantizers[place].name, *(float(self.increases[place, b]) for b in widths))
            for place in self.ranking
        ]
        columns = ("quantizer, most sensitive first", *(f"{b} bit" for b in widths))
        return DataTable(columns=columns, rows=tuple(rows))

    def _effects(self) -> Vector:
        """Ridge regression of ranks of losses on standardised log2 widths, all steps together."""
        columns, targets = [], []
        for step in self.run.candidates:
            finite = np.isfinite(step.losses)
            if finite.sum() > 2:
                ranks = np.argsort(np.argsort(step.losses[finite])).astype(np.float64)
                targets.append((ranks - ranks.mean()) / max(ranks.std(), 1e-12))
                widths = np.log2(step.bits[finite])
                columns.append(widths - widths.mean(axis=0))
        if not targets:
            return np.full(len(self.run.quantizers), np.nan)
        matrix, target = np.concatenate(columns), np.concatenate(targets)
        spread = matrix.std(axis=0)
        moved = spread > 0
        scaled = matrix[:, moved] / spread[moved]
        gram = scaled.T @ scaled + _RIDGE * np.sqrt(len(target)) * np.eye(int(moved.sum()))
        effects = np.full(len(self.run.quantizers), np.nan)
        effects[moved] = -np.linalg.solve(gram, scaled.T @ target)
        return effects
