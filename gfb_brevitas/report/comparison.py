"""A table of allocations side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.costs import BitOperations, MeanActivationBits, MeanWeightBits, WeightSize
from gfb_brevitas.space import SearchSpace

BITS_PER_KILOBYTE = 8000


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One trained model of a comparison.

    Attributes:
        name: What it is.
        accuracy: Share of the test samples that it classifies right.
        allocation: Its bit widths.
        weight_bits: Bits of all quantized weights.
        mean_weight_bits: Mean width over all weights.
        mean_activation_bits: Mean width over all activation values.
        bit_operations: Multiply-accumulates times both operands' widths, per sample.
        epochs: Epochs that it was trained for.
        seconds: Wall time.
    """

    name: str
    accuracy: float
    allocation: Mapping[str, int]
    weight_bits: float
    mean_weight_bits: float
    mean_activation_bits: float
    bit_operations: float
    epochs: int
    seconds: float

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
    ) -> Contender:
        """Compute the costs of an allocation.

        Args:
            name: What it is.
            space: The search space of the model.
            allocation: The bit widths.
            accuracy: Share of the test samples classified right.
            epochs: Epochs of training.
            seconds: Wall time.
        """
        bits = space.bits(allocation)[None, :]
        costs = (WeightSize(), MeanWeightBits(), MeanActivationBits(), BitOperations())
        size, mean_weight, mean_activation, operations = (
            float(cost.bind(space.profile)(bits)[0]) for cost in costs
        )
        return cls(
            name=name,
            accuracy=accuracy,
            allocation=dict(allocation),
            weight_bits=size,
            mean_weight_bits=mean_weight,
            mean_activation_bits=mean_activation,
            bit_operations=operations,
            epochs=epochs,
            seconds=seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data for JSON."""
        return asdict(self)


def comparison_table(contenders: Sequence[Contender], title: str) -> Table:
    """A table for the terminal, one row per contender, in the given order; it fits into 80 columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("model", overflow="fold", min_width=10)
    for heading in ("accuracy", "weights", "W bits", "A bits", "Mbit ops", "epochs", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in contenders:
        table.add_row(
            row.name,
            f"{row.accuracy:.2%}",
            f"{_short(row.weight_bits / BITS_PER_KILOBYTE)} kB",
            f"{row.mean_weight_bits:.2f}",
            f"{row.mean_activation_bits:.2f}",
            _short(row.bit_operations / 1e6),
            str(row.epochs),
            f"{row.seconds:.0f} s",
        )
    return table


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"
