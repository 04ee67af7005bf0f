"""The result of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.constraints import BudgetUse
from gfb_brevitas.search.history import History, json_ready

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchResult:
    """What :func:`gfb_brevitas.search.fit` returns.

    Attributes:
        model: A plain Brevitas model at the final allocation, in evaluation mode.
        searchable: The searchable model that was passed, with the same weights and allocation.
        allocation: The final allocation.
        metric: Its validation metric; higher is better. Without a metric of yours the negative mean loss.
        test_metric: The metric on test data, if there is one: nothing was chosen by it.
        best_epoch: Epochs that were trained when the returned state was reached.
        costs: How much of each budget it uses.
        history: All records of the run.
        run_folder: The run's folder, if it has one.
    """

    model: nn.Module
    searchable: SearchableModel
    allocation: BitAllocation
    metric: float
    test_metric: float | None
    best_epoch: int
    costs: tuple[BudgetUse, ...]
    history: History
    run_folder: Path | None

    def __repr__(self) -> str:
        """A line for people; ``allocation`` and ``summary()`` have the details."""
        widths = list(self.allocation.values())
        parts = [f"metric={self.metric:.5g}"]
        parts += [] if self.test_metric is None else [f"test_metric={self.test_metric:.5g}"]
        if widths:
            parts.append(f"{len(widths)} quantizers at {min(widths)} to {max(widths)} bits")
        parts += [f"{use.name} at {use.use:.1%}" for use in self.costs]
        parts += [] if self.run_folder is None else [f"run_folder={str(self.run_folder)!r}"]
        return f"SearchResult({', '.join(parts)})"

    @property
    def seconds(self) -> float:
        """Wall time of the run, in all its parts if it was resumed."""
        return self.history.seconds

    def summary(self) -> dict[str, Any]:
        """The result in numbers, as plain data for JSON."""
        tested = {} if self.test_metric is None else {"test_metric": self.test_metric}
        document: dict[str, Any] = json_ready(
            {
                "metric": self.metric,
                **tested,
                "best_epoch": self.best_epoch,
                "allocation": dict(self.allocation),
                "costs": [asdict(row) for row in self.costs],
                "rounds": len(self.history.rounds),
                "steps": len(self.history.steps),
                "evaluations": sum(step.evaluations for step in self.history.steps),
                "epochs": len(self.history.epochs),
                "warnings": list(self.history.warnings),
                "seconds": self.seconds,
            }
        )
        return document
