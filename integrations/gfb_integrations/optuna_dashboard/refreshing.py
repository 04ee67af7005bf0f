"""Work in the background that may fail and is then done again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gfb_brevitas.search.storages import first_line

_RETRY_DELAY_S = 0.5

_logger = logging.getLogger("gfb_brevitas.optuna_dashboard")


class Refreshing:
    """Calls a function in the background whenever it is asked to; requests that wait are one.

    An exception in the function is a warning, the first time, and the call is due again.

    Args:
        refresh: The function.
        in_background: ``False`` calls it at once, in the thread that asks.
    """

    def __init__(self, refresh: Callable[[], None], *, in_background: bool) -> None:
        self._refresh, self._in_background = refresh, in_background
        self._changed = threading.Condition()
        self._due = self._at_work = self._warned = False
        self._failure: Exception | None = None

    def request(self) -> None:
        """Ask for a call."""
        with self._changed:
            self._due = True
            if self._at_work:
                return
            self._at_work = True
        if self._in_background:
            threading.Thread(target=self._work, name="gfb-dashboard", daemon=True).start()
        else:
            self._work()

    def finish(self, timeout_s: float) -> str | None:
        """Wait until nothing is due; try again what failed. Says why not all is done, if so."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._changed:
                ended = self._changed.wait_for(
                    lambda: not self._at_work, timeout=max(deadline - time.monotonic(), 0.0)
                )
            if not ended:
                return f"the storage did not answer within {timeout_s:g} s"
            if self._failure is None or time.monotonic() + _RETRY_DELAY_S > deadline:
                return None if self._failure is None else first_line(self._failure)
            time.sleep(_RETRY_DELAY_S)
            self.request()

    def _work(self) -> None:
        while self._next():
            try:
                self._refresh()
                self._failure = None
            except Exception as error:  # of whichever database driver or artifact store
                self._failure = error
                if not self._warned:
                    self._warned = True
                    reason = first_line(error)
                    _logger.warning("Notes for optuna-dashboard failed (%s); they are tried again.", reason)

    def _next(self) -> bool:
        with self._changed:
            going_on, self._due = self._due, False
            if not going_on:
                self._at_work = False
                self._changed.notify_all()
            return going_on
