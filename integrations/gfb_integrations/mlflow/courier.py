"""The process that delivers events to MLflow while a search goes on.

A process and not a thread: MLflow's work takes nothing from the search's interpreter, its settings of retries
and timeouts and its global state are its own, and it outlives a search that is killed for as long as it takes
to deliver the rest.

Started as ``python -m gfb_integrations.mlflow.courier`` with a :class:`Mission` as JSON on standard input; a
line ``close SECONDS`` asks it to finish, and the end of the input says that the search has gone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gfb_integrations.mlflow.lock import Lock
from gfb_integrations.mlflow.spool import (
    EVENTS,
    LOCK,
    OWN_EVENTS,
    SEARCH,
    EventFile,
    is_delivered,
    note_state,
    read_lines,
)
from gfb_integrations.mlflow.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from gfb_integrations.mlflow.delivery import Delivery

ALL_DELIVERED, SOME_LEFT = 0, 3
_POLL_S = 1.0  # events of as long go into the same requests
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 15.0
_PATIENCE_WITHOUT_SEARCH_S = 60.0
_FAILS_FOR_GOOD_S = 5.0  # after so long, closing makes one more attempt only

_logger = logging.getLogger("gfb_integrations.mlflow.courier")


@dataclass(frozen=True, kw_only=True)
class Mission:
    """What a courier is to do.

    Attributes:
        folder: The spool.
        session: Marks the events of the search that started the courier.
        uri: The server or store.
        parent: Process id of the search; ``None`` delivers what is there and ends.
        system_metrics: Whether the machine's load is sampled.
        close_s: Seconds to deliver for, where there is no search.
    """

    folder: str
    session: str
    uri: str
    parent: int | None
    system_metrics: bool = False
    close_s: float = 60.0

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"


class Wishes:
    """What the search asks for, read from standard input by a thread."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self.changed = threading.Event()
        self.deadline: float | None = None
        self.closed = False
        self._at_end = False

    def listen(self) -> None:
        """Read until the end."""
        for line in sys.stdin:
            word, _, seconds = line.partition(" ")
            if word == "close":
                self.close(float(seconds))
        self._at_end = True
        self.changed.set()

    def close(self, seconds: float) -> None:
        """Ask to finish within so many seconds."""
        self.closed = True
        self.deadline = time.monotonic() + seconds
        self.changed.set()

    @property
    def abandoned(self) -> bool:
        """Whether the search has gone without a word."""
        # Not the end of the input alone: forked children of the search may hold it open.
        gone = hasattr(os, "getppid") and self._parent is not None and os.getppid() != self._parent
        return (self._at_end or gone) and not self.closed


class _Attempts:
    """Since when something fails, and when to try it again."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._due = 0.0
        self.delay = _FIRST_DELAY_S

    def fails(self) -> bool:
        """Note a failure; whether it worked before."""
        now, worked = time.monotonic(), self._since is None
        self.delay = _FIRST_DELAY_S if worked else min(2 * self.delay, _LONGEST_DELAY_S)
        self._since = now if self._since is None else self._since
        self._due = now + self.delay
        return worked

    def works(self) -> bool:
        """Note a success; whether it failed before."""
        failed = self._since is not None
        self._since, self._due = None, 0.0
        return failed

    @property
    def failing_s(self) -> float:
        """Seconds for which it has failed."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def is_due(self) -> bool:
        """Whether to try again."""
        return time.monotonic() >= self._due


class Courier:
    """Delivers until it is told to stop, or until the search has gone and nothing is left.

    Args:
        mission: What to do.
        wishes: What the search asks for.
    """

    def __init__(self, mission: Mission, wishes: Wishes) -> None:
        self._mission, self._wishes = mission, wishes
        self._folder = Path(mission.folder)
        self._own = EventFile(self._folder / OWN_EVENTS)
        self._load: SystemMetrics | None = None
        if mission.system_metrics:
            with self._extra():
                self._load = SystemMetrics(self._own.kinds["metrics"])
        self._events, self._files = _Attempts(), _Attempts()
        self._delivery: Delivery | None = None

    def work(self) -> int:
        """Deliver; how it ended."""
        while True:
            if self._wishes.abandoned and self._wishes.deadline is None:
                self._wishes.deadline = time.monotonic() + _PATIENCE_WITHOUT_SEARCH_S
                self._say_that_it_was_killed()
            self._sample()
            delivered = self._attempt()
            if self._wishes.deadline is not None and not delivered:
                if delivered == 0 and is_delivered(self._folder):
                    return ALL_DELIVERED
                if self._gives_up():
                    return SOME_LEFT
            if not delivered:
                self._pause(self._events.delay if delivered is None else _POLL_S)

    def _attempt(self) -> int | None:
        """Deliver some events; how many, ``None`` if it failed."""
        try:
            if self._delivery is None:
                self._delivery = _new_delivery(self._folder, self._mission.uri)
            delivered = self._delivery.deliver_some()
        except Exception as error:
            if self._events.fails():
                _logger.warning(
                    "MLflow does not take events (%s). The search goes on; they are kept in %s until then.",
                    _first_line(error),
                    self._folder,
                )
            return None
        if self._events.works():
            _logger.info("MLflow takes events again.")
        if delivered == 0 and self._delivery.later and self._files.is_due:
            try:
                self._delivery.deliver_later_ones()
                self._files.works()
            except Exception:  # it was logged when it was put off
                self._files.fails()
        return delivered

    def _gives_up(self) -> bool:
        past = self._wishes.deadline is not None and time.monotonic() > self._wishes.deadline
        for_good = max(self._events.failing_s, self._files.failing_s) > _FAILS_FOR_GOOD_S
        return past or (self._wishes.closed and for_good)

    def _pause(self, seconds: float) -> None:
        if self._wishes.deadline is not None:
            time.sleep(min(seconds, 0.2))
            return
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._wishes.abandoned:
            if self._wishes.changed.wait(min(left, 2.0)):
                self._wishes.changed.clear()
                return
            self._sample()

    def _sample(self) -> None:
        if self._load is None or self._wishes.deadline is not None:
            return
        with self._extra():
            sampled = self._load.sample()
            if sampled is not None:
                step, values = sampled
                self._add({"kind": "metrics", "run": SEARCH, "step": step, "values": values})

    @contextmanager
    def _extra(self) -> Iterator[None]:
        """The machine's load, without which everything else is delivered all the same."""
        try:
            yield
        except Exception as error:  # of the monitors of MLflow and of the GPU's maker
            self._load = None
            _logger.warning("The machine's load is not logged any more: %s: %s", type(error).__name__, error)

    def _say_that_it_was_killed(self) -> None:
        """Unless the search had ended, or another process has gone on with it."""
        events = [line.event for line in read_lines(self._folder / EVENTS) if line.event]
        sessions = [event for event in events if event["kind"] == "session"]
        if not sessions or sessions[-1].get("session") != self._mission.session:
            return
        states: dict[str, str] = {}
        for event in events:
            note_state(states, event)
        for run, state in states.items():
            if state == "RUNNING":
                self._add({"kind": "status", "run": run, "status": "KILLED"})

    def _add(self, event: dict[str, object]) -> None:
        try:
            self._own.append({**event, "time": int(time.time() * 1000)})
        except OSError as error:
            _logger.warning("%s", error)


def _new_delivery(folder: Path, uri: str) -> Delivery:
    from gfb_integrations.mlflow.delivery import Delivery  # takes more than a second

    return Delivery(folder, uri)


def _first_line(error: Exception) -> str:
    from gfb_integrations.mlflow.delivery import first_line

    return first_line(error)


class _ToTheSearch(logging.Handler):
    """Prints what is logged as JSON lines, which the search puts into its own log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(json.dumps({"level": record.levelno, "text": record.getMessage()}), flush=True)
        except (OSError, ValueError):  # the search has gone
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for good


def main() -> int:
    """Carry out the mission on standard input."""
    mission = Mission(**json.loads(sys.stdin.readline()))
    logger = logging.getLogger("gfb_integrations.mlflow")
    logger.addHandler(_ToTheSearch())
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if hasattr(os, "nice"):
        os.nice(19)  # the search goes first
    wishes = Wishes(mission.parent)
    if mission.parent is None:
        wishes.close(mission.close_s)
    threading.Thread(target=wishes.listen, daemon=True).start()
    lock = Lock(Path(mission.folder) / LOCK)
    while not lock.acquire():  # that of a killed search is still at work
        if wishes.abandoned or (wishes.deadline is not None and time.monotonic() > wishes.deadline):
            _logger.warning("Another process delivers the events in %s.", mission.folder)
            return SOME_LEFT
        time.sleep(0.2)
    return Courier(mission, wishes).work()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread may still wait for input, which an orderly end would wait for
