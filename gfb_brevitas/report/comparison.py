"""A table of allocations side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.costs import BitOperations, Cost, MeanActivationBits, MeanWeightBits, WeightSize
from gfb_brevitas.profile import QuantizerKind
from gfb_brevitas.space import SearchSpace
from gfb_brevitas.terminal import compact_table

BITS_PER_KILOBYTE = 8000


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One trained model of a comparison.

    Attributes:
        name: What it is.
        accuracy: Share of the test samples that it classifies right, or what else was ``measured``.
        allocation: Its bit widths.
        weight_bits: Bits of all quantized weights.
        mean_weight_bits: Mean width over all weights; ``None`` if none is searchable.
        mean_activation_bits: Mean width over all activation values; ``None`` if none is searchable.
        bit_operations: Multiply-accumulates times both operands' widths, per sample.
        epochs: Epochs that it was trained for.
        seconds: Wall time.
        measured: What ``accuracy`` is; a share where this ends with "accuracy".
    """

    name: str
    accuracy: float
    allocation: Mapping[str, int]
    weight_bits: float
    mean_weight_bits: float | None
    mean_activation_bits: float | None
    bit_operations: float
    epochs: int
    seconds: float
    measured: str = "test accuracy"

    @classmethod
    def of(
        cls,
        name: str,
        space: SearchSpace,
        allocation: BitAllocation,
        *,
        accuracy: float,
        epochs: int,
        seconds: float,
        measured: str = "test accuracy",
    ) -> Contender:
        """Compute the costs of an allocation.

        Args:
            name: What it is.
            space: The search space of the model.
            allocation: The bit widths.
            accuracy: Share of the test samples classified right, or what else was measured.
            epochs: Epochs of training.
            seconds: Wall time.
            measured: What ``accuracy`` is.
        """
        bits = space.bits(allocation)[None, :]

        def value(cost: Cost) -> float:
            return float(cost.bind(space.profile)(bits)[0])

        def mean(cost: Cost, kind: QuantizerKind) -> float | None:
            searchable = any(info.kind == kind and info.elements for info in space.profile)
            return value(cost) if searchable else None

        return cls(
            name=name,
            accuracy=accuracy,
            allocation=dict(allocation),
            weight_bits=value(WeightSize()),
            mean_weight_bits=mean(MeanWeightBits(), "weight"),
            mean_activation_bits=mean(MeanActivationBits(), "activation"),
            bit_operations=value(BitOperations()),
            epochs=epochs,
            seconds=seconds,
            measured=measured,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data for JSON."""
        return asdict(self)


def comparison_table(contenders: Sequence[Contender], title: str) -> Table:
    """A table for the terminal, one row per contender, in the given order; it fits into 80 columns."""
    table = compact_table(title=title, title_justify="left")
    table.add_column("model", overflow="fold", min_width=10)
    shares = all(row.measured.endswith("accuracy") for row in contenders)
    for heading in (
        "accuracy" if shares else "metric",
        "weights",
        "W bits",
        "A bits",
        "Mbit ops",
        "epochs",
        "time",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in contenders:
        table.add_row(
            row.name,
            f"{row.accuracy:.2%}" if shares else f"{row.accuracy:.4g}",
            f"{_short(row.weight_bits / BITS_PER_KILOBYTE)} kB",
            _width(row.mean_weight_bits),
            _width(row.mean_activation_bits),
            _short(row.bit_operations / 1e6),
            str(row.epochs),
            f"{row.seconds:.0f} s",
        )
    return table


def comparison_of(summary: Mapping[str, Any]) -> list[Contender]:
    """The rows of ``comparison`` in a ``summary.json``; what cannot be read, others may have written."""
    rows = summary.get("comparison")
    found = []
    for row in rows if isinstance(rows, list) else []:
        with suppress(TypeError, ValueError, AttributeError):
            found.append(Contender(**{**row, "accuracy": _number(row.get("accuracy"))}))
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _width(bits: float | None) -> str:
    return "–" if bits is None else f"{bits:.2f}"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"
