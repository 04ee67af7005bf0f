"""A table of allocations side by side, with what each uses of every budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.constraints import BudgetUse
from gfb_brevitas.costs import BitOperations, Cost, MeanActivationBits, MeanWeightBits, WeightSize
from gfb_brevitas.profile import ModelProfile, QuantizerKind
from gfb_brevitas.quantities import difference, is_share, measure, quantity
from gfb_brevitas.report.budgets import ABOVE, heading_of, use_cell
from gfb_brevitas.report.columns import Columns, fitted
from gfb_brevitas.report.names import Name
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
        bit_operations: Multiply-accumulates times both operands' widths, per sample; ``None`` where they are
            not known.
        epochs: Epochs that it was trained for.
        seconds: Wall time.
        measured: What ``accuracy`` is; a share where this ends with "accuracy".
        costs: How much of every budget it uses.
        searched: Whether its widths were searched; otherwise it is what the search is compared with.
        test: The test metric, if there is one; nothing was chosen by it.
        test_measured: What ``test`` is, where it is not what was ``measured``.
        spread: Standard deviation of ``accuracy``, where it is a mean over several seeds.
    """

    name: str
    accuracy: float
    allocation: Mapping[str, int]
    weight_bits: float
    mean_weight_bits: float | None
    mean_activation_bits: float | None
    bit_operations: float | None
    epochs: int
    seconds: float
    measured: str = "test accuracy"
    costs: tuple[BudgetUse, ...] = ()
    searched: bool = True
    test: float | None = None
    test_measured: str | None = None
    spread: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it keeps all budgets."""
        return all(use.feasible for use in self.costs)

    @property
    def shown(self) -> str:
        """What was measured, for people."""
        around = "" if self.spread is None else f" ± {difference(self.spread, self.measured).lstrip('+')}"
        return f"{measure(self.accuracy, self.measured)}{around}"

    @property
    def shown_test(self) -> str:
        """The test metric, for people."""
        return measure(self.test, self.test_measured or self.measured)

    @property
    def weight_kilobytes(self) -> float:
        """Size of the quantized weights in kB."""
        return self.weight_bits / BITS_PER_KILOBYTE

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
        costs: Sequence[BudgetUse] = (),
        searched: bool = True,
        test: float | None = None,
        test_measured: str | None = None,
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
            costs: How much of every budget it uses, see :meth:`gfb_brevitas.Constraints.report`.
            searched: Whether its widths were searched.
            test: The test metric, if there is one.
            test_measured: What ``test`` is, where it is not what was ``measured``.
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
            bit_operations=value(BitOperations()) if _has_known_products(space.profile) else None,
            epochs=epochs,
            seconds=seconds,
            measured=measured,
            costs=tuple(costs),
            searched=searched,
            test=test,
            test_measured=test_measured,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data for JSON."""
        return asdict(self)


def _has_known_products(profile: ModelProfile) -> bool:
    return bool(profile.products) and not profile.unknown_operators


def comparison_table(contenders: Sequence[Contender], title: str) -> Table:
    """A table for the terminal, one row per contender, in the given order; it fits into 80 columns.

    Where there are budgets, a column for each says which share of its limit is used; what is above is marked.
    """
    table = compact_table(title=title, title_justify="left", caption_justify="left")
    table.add_column("model", min_width=10)
    columns = _columns(contenders)
    for heading in columns:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for place, row in enumerate(contenders):
        table.add_row(Name(row.name), *(cells[place] for cells in columns.values()))
    if not all(row.kept for row in contenders):
        table.caption = Text(f"{ABOVE} above the budget")
    return table


def _columns(contenders: Sequence[Contender]) -> Columns:
    """Cells by heading."""
    shares = all(is_share(row.measured) for row in contenders)
    columns: Columns = {"accuracy" if shares else "metric": [row.shown for row in contenders]}
    if any(row.test is not None for row in contenders):
        columns["test"] = [row.shown_test for row in contenders]
    budgets = budgets_of(contenders)
    for name in budgets:
        columns[heading_of(name)] = [use_cell(use_of(row, name)) for row in contenders]
    if not budgets:
        columns["weights"] = [f"{quantity(row.weight_bits / 8, 3)}B" for row in contenders]
        columns["bit ops"] = [quantity(row.bit_operations, 3) for row in contenders]
    columns["W bits"] = [_width(row.mean_weight_bits) for row in contenders]
    columns["A bits"] = [_width(row.mean_activation_bits) for row in contenders]
    columns["epochs"] = [str(row.epochs) for row in contenders]
    columns["time"] = [f"{row.seconds:.0f} s" for row in contenders]
    return fitted(columns, ("epochs", "A bits", "W bits", "time"))


def budgets_of(contenders: Sequence[Contender]) -> list[str]:
    """Names of the budgets that contenders say something of."""
    return list(dict.fromkeys(use.name for row in contenders for use in row.costs))


def use_of(contender: Contender, budget: str) -> BudgetUse | None:
    """What a contender uses of a budget, if it says so."""
    return next((use for use in contender.costs if use.name == budget), None)


def binding_budget(contenders: Sequence[Contender]) -> str | None:
    """The budget that binds: of those that differ between the contenders, the one the search uses most of."""
    searched = next((row for row in reversed(contenders) if row.searched), None)
    if searched is None:
        return None
    differing = [
        use
        for use in searched.costs
        if len({found.value for row in contenders if (found := use_of(row, use.name))}) > 1
    ]
    return max(differing, key=lambda use: use.use).name if differing else None


def comparison_of(summary: Mapping[str, Any]) -> list[Contender]:
    """The rows of ``comparison`` in a ``summary.json``; what cannot be read, others may have written."""
    rows = summary.get("comparison")
    found = []
    for row in rows if isinstance(rows, list) else []:
        with suppress(TypeError, ValueError, AttributeError, KeyError):
            found.append(_contender(row))
    return found


def _contender(row: Mapping[str, Any]) -> Contender:
    costs = tuple(BudgetUse(**use) for use in row.get("costs", ()))
    searched = row.get("searched", not row["name"].startswith("uniform"))  # rows of earlier versions
    read = {"accuracy": _number(row.get("accuracy")), "costs": costs, "searched": searched}
    return Contender(**{**row, **read})


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _width(bits: float | None) -> str:
    return "–" if bits is None else f"{bits:.2f}"
