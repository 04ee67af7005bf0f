"""A run's progress in the terminal."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from gfb_brevitas.notices import shown_by
from gfb_brevitas.report.heartbeat import INTERVAL_S, Heartbeat
from gfb_brevitas.report.time_left import TimeLeft, clock
from gfb_brevitas.search import (
    Callback,
    EndRecord,
    EpochRecord,
    GenerationRecord,
    RoundRecord,
    StartRecord,
    StepRecord,
)
from gfb_brevitas.terminal import plain_console, print_lines, visible


class TerminalProgress(Callback):
    """Shows rounds, gradient-free steps and epochs as they happen, and the time that is left.

    In a terminal there is one line that is drawn anew: the round, the step with its best feasible loss and
    candidates per second, or the epoch with its loss and validation metric. Elsewhere, in a log file or a
    notebook, there is a line for each round, and one whenever nothing was printed for half a minute.
    Warnings, and what evaluates the candidates, have lines of their own, each once.

    Example:
        >>> with TerminalProgress() as progress:  # doctest: +SKIP
        ...     result = gfb_brevitas.fit(searchable, ..., callbacks=[progress])

    Args:
        title: First word of every line.
        console: Where to print.
        interval_s: The longest that nothing is printed where there is no terminal, in seconds.
    """

    def __init__(
        self, title: str = "search", console: Console | None = None, *, interval_s: float = INTERVAL_S
    ) -> None:
        self.console = console or plain_console()
        self._title = title
        self._progress: Progress | None = None
        self._bar: Any = None
        self._left: TimeLeft | None = None
        self._round = 0
        self._best_feasible_loss = math.nan
        self._note, self._since = "", 0.0  # of the last record, and when it came
        self._heartbeat = Heartbeat(self._say_where, interval_s)
        self._notices = ExitStack()

    def __enter__(self) -> Self:
        """Remove the bar at the end of the block, however it ends."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self.close()

    def on_start(self, record: StartRecord) -> None:
        """Show the bar."""
        self._notices.enter_context(shown_by(self._tell))
        if record.resumed:
            self._print(f"{self._title}: resumed after {len(record.history.epochs)} epochs")
        self._left = TimeLeft(record.configuration, record.history)
        rounds = [epoch.round for epoch in record.history.epochs] + [
            step.round for step in record.history.steps
        ]
        self._round = max(rounds, default=0)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[left]} left", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._bar = self._progress.add_task(
            self._where(),
            total=self._left.epochs + self._left.steps,
            completed=self._left.done,
            note="",
            left=clock(self._left.seconds_left),
        )
        self._progress.start()
        self._since = time.monotonic()
        if not self.console.is_terminal:
            self._heartbeat.start()

    def on_generation(self, record: GenerationRecord) -> None:
        """Show how the search goes."""
        self._count(record)
        if record.generation == 1:
            self._best_feasible_loss = math.nan
        found = (self._best_feasible_loss, record.best_feasible_loss)
        self._best_feasible_loss = min((loss for loss in found if not math.isnan(loss)), default=math.nan)
        known = not math.isnan(self._best_feasible_loss)
        best = f"best {self._best_feasible_loss:.4f}" if known else "none feasible"
        step = f"step {record.step}/{self._left.steps_per_round}: " if self._left else ""
        rate = f"{self._left.rate:.0f}/s, " if self._left else ""
        self._show(f"{step}{best}, {rate}{record.evaluations:,} candidates")

    def on_step(self, record: StepRecord) -> None:
        """Advance the bar."""
        self._count(record)
        self._show(f"step {record.step}: {record.feasible_share:.0%} of {record.evaluations:,} feasible")

    def on_epoch(self, record: EpochRecord) -> None:
        """Advance the bar."""
        self._count(record)
        epochs = f"/{self._left.epochs}" if self._left else ""
        self._show(
            f"epoch {record.epoch}{epochs}: loss {record.train_loss:.4f}, validation {record.metric:.4f}"
        )

    def on_round(self, record: RoundRecord) -> None:
        """Print the round's result."""
        rounds = f"/{self._left.rounds}" if self._left else ""
        line = f"{self._title}: round {record.round}{rounds}, validation {record.metric:.4f}"
        if record.costs:
            fullest = max(record.costs, key=lambda row: float(row["use"]))
            line += f", {fullest['name']} at {fullest['use']:.1%}"
        if self._left and record.round < self._left.rounds:
            line += f", {clock(self._left.seconds_left)} left"
        self._print(line)

    def on_end(self, record: EndRecord) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar, also of a run that did not reach its end."""
        self._notices.close()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._heartbeat.stop()

    def _count(self, record: EpochRecord | StepRecord | GenerationRecord) -> None:
        self._round = record.round
        if self._left is not None:
            self._left.add(record)

    def _where(self) -> str:
        if self._left is None:
            return self._title
        if self._round == 0 and self._left.pretrain_epochs:
            return f"{self._title}, pretraining"
        return f"{self._title}, round {max(1, self._round)}/{self._left.rounds}"

    def _tell(self, sentence: str) -> None:
        text = Text(visible(f"{self._title}: {sentence}"))
        self.console.print(text, soft_wrap=not self.console.is_terminal)  # a log has a line for each
        self._heartbeat.printed()

    def _print(self, line: str) -> None:
        print_lines(self.console, line)
        self._heartbeat.printed()

    def _say_where(self) -> None:
        """A line for a log: what is under way, the time that is left, and the last that is known."""
        if self._left is None:
            return
        waited, left = time.monotonic() - self._since, self._left.seconds_left
        rest = f"at work for {clock(waited)}" if left is None else f"{clock(max(0.0, left - waited))} left"
        last = f" ({self._note})" if self._note else ""
        print_lines(self.console, f"{self._title}: {self._left.under_way}, {rest}{last}")

    def _show(self, note: str) -> None:
        self._note, self._since = note, time.monotonic()
        if self._progress is not None and self._left is not None:
            self._progress.update(
                self._bar,
                description=self._where(),
                completed=self._left.done,
                note=note,
                left=clock(self._left.seconds_left),
            )
