"""The search beside uniform widths, trained as long, where the run's summary holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.data.table import DataTable, listed

_BITS_PER_KILOBYTE = 8000


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A row of the comparison.

    Attributes:
        name: What it is.
        accuracy: Its test accuracy, a share.
        weight_kilobytes: Size of its weights.
        mean_weight_bits: Mean width of its weights.
        mean_activation_bits: Mean width of its activations.
        bit_operations: Its bit operations.
        epochs: Epochs that it was trained for.
        searched: Whether its widths were searched.
    """

    name: str
    accuracy: float
    weight_kilobytes: float
    mean_weight_bits: float | None
    mean_activation_bits: float | None
    bit_operations: float | None
    epochs: int | None
    searched: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The rows of ``comparison`` in ``summary.json``, as :class:`gfb_brevitas.report.Contender` writes them.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def models(self) -> tuple[TrainedModel, ...]:
        """In their order; rows that cannot be read are left out."""
        rows = (self.run.summary or {}).get("comparison")
        return tuple(filter(None, map(_model, rows if isinstance(rows, list) else [])))

    @property
    def measured(self) -> str:
        """What the models are compared by: ``"test accuracy"`` unless the rows say something else."""
        rows = (self.run.summary or {}).get("comparison")
        first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], Mapping) else {}
        return str(first.get("measured") or "test accuracy")

    @property
    def is_share(self) -> bool:
        """Whether it is a share, shown in percent."""
        return self.measured.endswith("accuracy")

    def value_text(self, model: TrainedModel) -> str:
        """A model's value, for people."""
        return f"{model.accuracy:.2%}" if self.is_share else f"{model.accuracy:.4g}"

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        return None if len(self.models) > 1 else "No uniform widths were trained for a comparison."

    def description(self) -> str:
        """The chart in words."""
        said = [
            f"{model.name} reaches {self.value_text(model)} with {model.weight_kilobytes:.3g} kB of weights"
            for model in self.models
        ]
        return f"{self.measured.capitalize()} and size of the weights: {listed(said, 8)}."

    def table(self) -> DataTable:
        """The chart in numbers."""
        rows = tuple(
            (
                m.name,
                self.value_text(m),
                f"{m.weight_kilobytes:.4g}",
                m.mean_weight_bits,
                m.mean_activation_bits,
                m.bit_operations,
                m.epochs,
            )
            for m in self.models
        )
        columns = ("model", self.measured, "weights in kB", "mean weight bits", "mean activation bits")
        return DataTable(columns=(*columns, "bit operations", "epochs"), rows=rows)


def _model(row: Any) -> TrainedModel | None:
    try:
        assert isinstance(row, Mapping)
        name = str(row["name"])
        return TrainedModel(
            name=name,
            accuracy=float(row["accuracy"]),
            weight_kilobytes=float(row["weight_bits"]) / _BITS_PER_KILOBYTE,
            mean_weight_bits=row.get("mean_weight_bits"),
            mean_activation_bits=row.get("mean_activation_bits"),
            bit_operations=row.get("bit_operations"),
            epochs=row.get("epochs"),
            searched=not name.startswith("uniform"),
        )
    except (AssertionError, KeyError, TypeError, ValueError):
        return None
