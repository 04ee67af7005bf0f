"""A run's progress in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gfb_brevitas.search import (
    Callback,
    EndRecord,
    EpochRecord,
    GenerationRecord,
    RoundRecord,
    StartRecord,
    StepRecord,
)


class TerminalProgress(Callback):
    """Shows epochs, gradient-free steps and rounds as they happen.

    In a terminal there is a bar with the time that is left; elsewhere only one line for each round.

    Args:
        title: First word of every line.
        console: Where to print.
    """

    def __init__(self, title: str = "search", console: Console | None = None) -> None:
        self.console = console or Console()
        self._title = title
        self._progress: Progress | None = None
        self._bar: Any = None
        self._step_seconds = 0.0

    def on_start(self, record: StartRecord) -> None:
        """Show the bar."""
        if record.resumed:
            self._print(f"{self._title}: resumed after {len(record.history.epochs)} epochs")
        total = _units(record.configuration)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        done = len(record.history.epochs) + len(record.history.steps)
        self._bar = self._progress.add_task(self._title, total=total, completed=done, note="")
        self._progress.start()

    def on_generation(self, record: GenerationRecord) -> None:
        """Show how the search goes."""
        before = 0.0 if record.generation == 1 else self._step_seconds
        self._step_seconds = before + record.seconds
        rate = record.evaluations / max(1e-9, self._step_seconds)
        loss = f"loss {record.best_feasible_loss:.4f}" if record.feasible else "none feasible"
        self._note(f"{record.evaluations} candidates, {rate:.0f}/s, {loss}")

    def on_step(self, record: StepRecord) -> None:
        """Advance the bar."""
        self._advance()

    def on_epoch(self, record: EpochRecord) -> None:
        """Advance the bar."""
        self._note(f"epoch {record.epoch}, loss {record.train_loss:.4f}, validation {record.metric:.4f}")
        self._advance()

    def on_round(self, record: RoundRecord) -> None:
        """Print the round's result."""
        line = f"{self._title}: round {record.round}, validation {record.metric:.4f}"
        if record.costs:
            fullest = max(record.costs, key=lambda row: float(row["use"]))
            line += f", fullest budget: {fullest['name']} {fullest['use']:.1%}"
        self._print(line)

    def on_end(self, record: EndRecord) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar, also of a run that did not reach its end."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _note(self, text: str) -> None:
        if self._progress is not None:
            self._progress.update(self._bar, note=text)

    def _advance(self) -> None:
        if self._progress is not None:
            self._progress.advance(self._bar)


def _units(configuration: Mapping[str, Any]) -> int | None:
    search = configuration.get("search", {})
    rounds, steps = search.get("rounds", 0), search.get("steps_per_round", 0)
    searched = configuration.get("allocation") is None
    return int(
        search.get("pretrain_epochs", 0) + rounds * (search.get("epochs_per_round", 0) + steps * searched)
    )
