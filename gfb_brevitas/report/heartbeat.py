"""Signs of life of work that takes long, where nobody sees a bar move: in a log file, or a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from gfb_brevitas.report.time_left import clock
from gfb_brevitas.terminal import plain_console, print_lines

INTERVAL_S = 30.0
"""The longest that nothing is printed."""


class Heartbeat:
    """Calls a function whenever nothing was printed for a while, from a thread of its own.

    Args:
        say: What prints a line.
        interval_s: The longest silence, in seconds.
    """

    def __init__(self, say: Callable[[], None], interval_s: float = INTERVAL_S) -> None:
        self._say, self._interval_s = say, interval_s
        self._ends, self._last = threading.Event(), time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Begin, with a silence."""
        self.printed()
        self._thread = threading.Thread(target=self._beat, name="gfb heartbeat", daemon=True)
        self._thread.start()
        return self

    def printed(self) -> None:
        """Something was printed just now."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """End; nothing is printed after."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._ends.wait(max(0.0, self._last + self._interval_s - time.monotonic())):
            if time.monotonic() - self._last >= self._interval_s:
                self._say()
                self.printed()


@contextmanager
def saying_that(what: str, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Print to the error stream that something is under way and since when, as long as the block takes.

    Args:
        what: What is done, e.g. ``"FINN's estimate"``.
        interval_s: Seconds between the lines.
    """
    console, began = plain_console(stderr=True), time.monotonic()
    heartbeat = Heartbeat(
        lambda: print_lines(console, f"{what}: at work for {clock(time.monotonic() - began)}"), interval_s
    ).start()
    try:
        yield
    finally:
        heartbeat.stop()
