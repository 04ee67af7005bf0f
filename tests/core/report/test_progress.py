"""Progress on a real run: in a terminal, and where there is none."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

import gfb_brevitas as gfb
from gfb_brevitas.report import TerminalProgress
from gfb_brevitas.search import GenerationRecord
from tests.core.search.small_problem import SEARCH, Recorder, run

QUICK = replace(SEARCH, steps_per_round=1)


class Stop(BaseException):
    """Stands for whatever ends a process; nothing catches it."""


def console_of(*, terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=80, force_terminal=terminal, color_system=None), stream


def run_with(progress: TerminalProgress, **changes: Any) -> gfb.SearchResult:
    return run(**{"search": QUICK, "callbacks": [progress], **changes})


def without_control(text: str) -> list[str]:
    """The lines that a terminal was made to show, at some time."""
    return [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)) if line.strip()]


def test_without_a_terminal_there_is_one_line_for_each_round() -> None:
    console, stream = console_of(terminal=False)
    result = run_with(TerminalProgress("uniform 2", console))
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(result.history.rounds) == 2
    for line, record in zip(lines, result.history.rounds, strict=True):
        fullest = max(record.costs, key=lambda row: row["use"])
        assert line == (
            f"uniform 2: round {record.round}, validation {record.metric:.4f}, "
            f"fullest budget: {fullest['name']} {fullest['use']:.1%}"
        )
        assert len(line) < 80


def test_without_budgets_none_is_named() -> None:
    console, stream = console_of(terminal=False)
    result = run_with(TerminalProgress(console=console), budgets=[])
    assert (
        stream.getvalue().splitlines()[0]
        == f"search: round 1, validation {result.history.rounds[0].metric:.4f}"
    )


def test_names_are_no_markup() -> None:
    console, stream = console_of(terminal=True)
    run_with(TerminalProgress("[red]run[/]", console))
    assert "[red]run[/]: round 2, " in stream.getvalue()


class Drawn(TerminalProgress):
    """Draws after every change instead of some times a second."""

    def _note(self, text: str) -> None:
        super()._note(text)
        assert self._progress is not None
        self._progress.refresh()


def test_in_a_terminal_a_bar_shows_candidates_and_epochs_on_one_line() -> None:
    console, stream = console_of(terminal=True)
    recorder = Recorder()
    result = run(search=QUICK, callbacks=[recorder, Drawn("uniform 2", console)])
    shown = without_control(stream.getvalue())
    assert all(line.startswith("uniform 2") and len(line) <= 80 for line in shown)
    for generation in result.history.generations:
        loss = f"loss {generation.best_feasible_loss:.4f}" if generation.feasible else "none feasible"
        pattern = rf"{generation.evaluations} candidates, \d+/s, {re.escape(loss)}"
        assert any(re.search(pattern, line) for line in shown), pattern
    for epoch in result.history.epochs:
        note = f"epoch {epoch.epoch}, loss {epoch.train_loss:.4f}, validation {epoch.metric:.4f}"
        assert any(note in line for line in shown), note
    units = len(result.history.epochs) + len(result.history.steps)
    assert any(f"{units}/{units}" in line for line in shown)
    assert len([line for line in shown if "fullest budget" in line]) == 2


def test_a_baseline_counts_its_epochs_only() -> None:
    console, stream = console_of(terminal=True)
    allocation = dict.fromkeys(("0.weight_quant", "2.act_quant", "4.weight_quant"), 4)
    result = run_with(Drawn("uniform 4", console), allocation=allocation)
    epochs = len(result.history.epochs)
    assert any(f"{epochs}/{epochs}" in line for line in without_control(stream.getvalue()))


def test_a_resumed_run_says_so_and_goes_on_counting(tmp_path: Any) -> None:
    class StopAtSecondEpoch:
        def on_epoch(self, record: Any) -> None:
            if record.epoch == 2:
                raise Stop

    console, stream = console_of(terminal=True)
    first = Drawn("search", console)
    with pytest.raises(Stop):
        run(search=QUICK, run_folder=tmp_path, callbacks=[first, StopAtSecondEpoch()])
    first.close()
    first.close()
    assert (
        stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1
    )  # the cursor is back

    stream.truncate(0)
    run(search=QUICK, run_folder=tmp_path, resume=True, callbacks=[Drawn("search", console)])
    shown = without_control(stream.getvalue())
    assert "search: resumed after 2 epochs" in [line.strip("\x00 ") for line in shown]
    assert any("4/7" in line for line in shown) and not any("2/7" in line for line in shown)


def generation(number: int, seconds: float, **changes: Any) -> GenerationRecord:
    values: dict[str, Any] = {
        "seconds": seconds,
        "round": 1,
        "step": 1,
        "generation": number,
        "evaluations": 10 * number,
        "best_value": 1.0,
        "mean_value": 1.0,
        "best_feasible_loss": 1.0,
        "feasible": 1,
        "non_finite": 0,
        "step_size": 0.5,
    }
    return GenerationRecord(**{**values, **changes})


def test_the_rate_is_that_of_the_step_from_its_first_generation_on() -> None:
    notes: list[str] = []

    class Noted(TerminalProgress):
        def _note(self, text: str) -> None:
            notes.append(text)

    progress = Noted()
    for record in (
        generation(1, 2.0),
        generation(2, 3.0, feasible=0, best_feasible_loss=math.nan),
        generation(1, 0.5),
    ):
        progress.on_generation(record)
    assert notes == [
        "10 candidates, 5/s, loss 1.0000",
        "20 candidates, 4/s, none feasible",
        "10 candidates, 20/s, loss 1.0000",
    ]
