"""Progress on a real run: in a terminal, and where there is none."""

from __future__ import annotations

import io
import logging
import math
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

import gfb_brevitas as gfb
from gfb_brevitas import notices
from gfb_brevitas.report import TerminalProgress
from gfb_brevitas.report.time_left import TimeLeft, clock
from gfb_brevitas.search import EpochRecord, GenerationRecord, History, StartRecord
from tests.core.search.small_problem import SEARCH, run

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
    told, *lines = stream.getvalue().splitlines()
    assert told.startswith("uniform 2: Candidates are evaluated by the model itself; ")
    assert len(lines) == len(result.history.rounds) == 2
    for line, record in zip(lines, result.history.rounds, strict=True):
        fullest = max(record.costs, key=lambda row: row["use"])
        assert re.fullmatch(
            rf"uniform 2: round {record.round}/2, validation {record.metric:.4f}, "
            rf"{fullest['name']} at {fullest['use']:.1%}" + (r", 0:\d\d left" if record.round == 1 else ""),
            line,
        )
        assert len(line) < 80


def test_without_budgets_none_is_named() -> None:
    console, stream = console_of(terminal=False)
    result = run_with(TerminalProgress(console=console), budgets=[])
    assert (
        stream.getvalue().splitlines()[2]
        == f"search: round 2/2, validation {result.history.rounds[1].metric:.4f}"
    )


def test_warnings_have_a_line_of_their_own_once() -> None:
    class Worried:
        def on_epoch(self, record: Any) -> None:
            logging.getLogger("gfb_brevitas.search").warning("The loss [%s] is at chance.", "bold")

    console, stream = console_of(terminal=False)
    run(search=QUICK, callbacks=[TerminalProgress(console=console), Worried()])
    warnings = [line for line in stream.getvalue().splitlines() if "chance" in line]
    assert warnings == ["search: warning: The loss [bold] is at chance."]
    handlers = logging.getLogger("gfb_brevitas").handlers
    assert not any(isinstance(handler, notices._ForPeople) for handler in handlers)


def test_names_are_no_markup() -> None:
    console, stream = console_of(terminal=True)
    run_with(TerminalProgress("[red]run[/]", console))
    assert "[red]run[/]: round 2/2, " in stream.getvalue()


class Drawn(TerminalProgress):
    """Draws after every change instead of some times a second."""

    def _show(self, note: str) -> None:
        super()._show(note)
        assert self._progress is not None
        self._progress.refresh()


def test_in_a_terminal_one_line_shows_round_step_candidates_epochs_and_the_time_left() -> None:
    console, stream = console_of(terminal=True)
    result = run(search=QUICK, callbacks=[Drawn("search", console)])
    everything = without_control(stream.getvalue())
    told = "".join(everything).partition("Candidates are evaluated by")[2]
    assert told and "Candidates are evaluated by" not in told  # once
    shown = [line for line in everything if line.startswith("search") and "Candidates" not in line]
    assert len(everything) <= len(shown) + 2
    assert all(len(line) <= 80 for line in everything)
    assert any("search, pretraining" in line for line in shown)
    best: dict[int, float] = {}
    for generation in result.history.generations:
        if generation.feasible:
            best[generation.round] = min(best.get(generation.round, math.inf), generation.best_feasible_loss)
        found = f"best {best[generation.round]:.4f}" if generation.round in best else "none feasible"
        pattern = rf"search, round {generation.round}/2 .* 0:\d\d left step 1/1: {re.escape(found)}, \d+/s"
        assert any(re.search(pattern, line) for line in shown), pattern
    for epoch in result.history.epochs:
        note = f"epoch {epoch.epoch}/5: loss {epoch.train_loss:.4f}, validation {epoch.metric:.4f}"
        assert any(note in line for line in shown), note
    assert len([line for line in shown if "search: round" in line]) == 2


def test_a_baseline_counts_its_epochs_only() -> None:
    console, stream = console_of(terminal=True)
    allocation = dict.fromkeys(("0.weight_quant", "2.act_quant", "4.weight_quant"), 4)
    result = run_with(Drawn("uniform 4", console), allocation=allocation)
    shown = without_control(stream.getvalue())
    assert any(f"epoch {len(result.history.epochs)}/5:" in line for line in shown)
    assert any("0:00 left epoch 5/5" in line for line in shown)
    assert not any("step" in line for line in shown)


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
    assert any("epoch 3/5" in line for line in shown) and not any("epoch 2/5" in line for line in shown)
    assert any("step 1/1: best" in line for line in shown)


def generation(number: int, seconds: float, **changes: Any) -> GenerationRecord:
    values: dict[str, Any] = {
        "seconds": seconds,
        "round": 1,
        "step": 1,
        "generation": number,
        "evaluations": 10 * number,
        "best_value": 1.0,
        "mean_value": 1.0,
        "median_value": 1.0,
        "best_feasible_loss": 1.0,
        "feasible": 1,
        "non_finite": 0,
        "step_size": 0.5,
    }
    return GenerationRecord(**{**values, **changes})


def test_the_best_and_the_rate_are_those_of_the_step() -> None:
    notes: list[str] = []

    class Noted(TerminalProgress):
        def _show(self, note: str) -> None:
            notes.append(note)

    progress = Noted(console=console_of(terminal=False)[0])
    configuration = {"search": {"rounds": 1, "steps_per_round": 2}}
    progress.on_start(
        StartRecord(configuration=configuration, run_folder=None, resumed=False, history=History())
    )
    for record in (
        generation(1, 2.0, feasible=0, best_feasible_loss=math.nan),
        generation(2, 3.0, best_feasible_loss=1.0),
        generation(3, 5.0, best_feasible_loss=2.0),
        generation(1, 0.5, step=2, best_feasible_loss=1.5),
    ):
        progress.on_generation(record)
    progress.close()
    assert notes == [
        "step 1/2: none feasible, 5/s, 10 candidates",
        "step 1/2: best 1.0000, 4/s, 20 candidates",
        "step 1/2: best 1.0000, 3/s, 30 candidates",
        "step 2/2: best 1.5000, 20/s, 10 candidates",
    ]


def epoch(number: int, seconds: float) -> EpochRecord:
    numbers: Any = {"train_loss": 1.0, "learning_rate": 0.1, "metric": 0.5}
    return EpochRecord(seconds=seconds, epoch=number, round=1, feasible=True, best=True, **numbers)


def test_the_time_left_is_what_epochs_and_steps_took_so_far() -> None:
    search = {"rounds": 2, "steps_per_round": 1, "epochs_per_round": 2, "evaluations_per_step": 40}
    left = TimeLeft({"search": search}, History())
    assert left.seconds_left is None and clock(left.seconds_left) == "-:--"
    left.add(generation(1, 1.0))  # a quarter of the step in a second: 3 s to go, 4 s of the other step
    assert left.seconds_left == pytest.approx(7.0)
    left.add(generation(2, 3.0))  # half of it in 4 s
    assert left.seconds_left == pytest.approx(12.0)
    left = TimeLeft({"search": search}, History((epoch(1, 4.0),)))  # resumed
    left.add(epoch(2, 6.0))
    assert left.seconds_left == pytest.approx(10.0)
    assert (left.epochs, left.steps, left.done) == (4, 2, 2)


def test_an_allocation_that_was_given_has_no_steps_to_wait_for() -> None:
    search = {"rounds": 2, "steps_per_round": 3, "epochs_per_round": 2}
    left = TimeLeft({"search": search, "allocation": {"conv": 2}}, History((epoch(1, 4.0),)))
    assert left.steps == 0 and left.seconds_left == pytest.approx(12.0)


def test_the_bar_goes_however_a_run_ends() -> None:
    console, stream = console_of(terminal=True)

    class Stopping(gfb.Callback):
        def on_epoch(self, record: EpochRecord) -> None:
            raise Stop

    with pytest.raises(Stop), TerminalProgress(console=console) as progress:
        run_with(progress, callbacks=[progress, Stopping()])
    assert progress._progress is None
    assert (
        stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()[-40:]
    )  # the cursor is back


def test_a_result_prints_as_one_short_line() -> None:
    result = run(search=QUICK)
    text = repr(result)
    assert text.startswith(f"SearchResult(metric={result.metric:.5g}, 3 quantizers at ")
    assert f"{result.costs[0].name} at {result.costs[0].use:.1%}" in text
    assert "\n" not in text and len(text) < 160


# --- in a log file -------------------------------------------------------------------------------


class Waiting:
    """Waits in every epoch and generation until a sign of life was printed."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def on_start(self, record: Any) -> None:
        self._wait()

    def on_generation(self, record: Any) -> None:
        self._wait()

    def on_epoch(self, record: Any) -> None:
        self._wait()

    def _wait(self) -> None:
        begun = len(self._stream.getvalue())
        while "\n" not in self._stream.getvalue()[begun:]:
            time.sleep(0.001)


def test_long_phases_say_where_they_are_and_what_is_left() -> None:
    console, stream = console_of(terminal=False)
    progress = TerminalProgress(console=console, interval_s=0.01)
    result = run_with(progress, callbacks=[progress, Waiting(stream)])
    said, epochs = stream.getvalue(), len(result.history.epochs)
    assert len(re.findall(r"^search: round \d/2, validation", said, re.MULTILINE)) == 2
    first = r"^search: (pretraining, epoch|round 1/2, step) 1/\d+, at work for 0:\d\d$"
    assert re.search(first, said, re.MULTILINE)
    step = r"^search: round 2/2, step 1/1, 0:\d\d left \(step 1/1: .*candidates\)$"
    assert re.search(step, said, re.MULTILINE)
    epoch = rf"^search: .*epoch (\d+)/{epochs}, 0:\d\d left \(.*loss .*\)$"
    assert {"3", str(epochs)} <= set(re.findall(epoch, said, re.MULTILINE))


def test_nothing_is_printed_after_the_end() -> None:
    console, stream = console_of(terminal=False)
    progress = TerminalProgress(console=console, interval_s=0.01)
    run_with(progress)
    ended = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == ended
