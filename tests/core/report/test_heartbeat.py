"""Signs of life: none where something is printed, one after the other where nothing is."""

from __future__ import annotations

import threading

import pytest

from gfb_brevitas.report.heartbeat import Heartbeat, saying_that


def test_lines_come_until_the_end_and_never_after() -> None:
    said, enough = [], threading.Event()

    def say() -> None:
        said.append(len(said))
        if len(said) == 3:
            enough.set()

    heartbeat = Heartbeat(say, interval_s=0.001).start()
    assert enough.wait(60)
    heartbeat.stop()
    count = len(said)
    assert not enough.clear() and not enough.wait(0.02) and len(said) == count


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with saying_that("Export"):
        pass
    assert capsys.readouterr() == ("", "")


def test_long_work_says_what_and_since_when(capsys: pytest.CaptureFixture[str]) -> None:
    said = ""
    with saying_that("[FINN]", interval_s=0.001):
        while "\n" not in said:
            said += capsys.readouterr().err
    assert said.startswith("[FINN]: at work for 0:0")


def test_it_ends_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="mine"), saying_that("Export"):
        raise ValueError("mine")
    assert "gfb heartbeat" not in [thread.name for thread in threading.enumerate()]
