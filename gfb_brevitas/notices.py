"""What the log says that a person at the terminal should see: warnings, and notices."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PACKAGE_LOGGER = logging.getLogger("gfb_brevitas")
_NOTICE = {"notice": True}


def notify(logger: logging.Logger, text: str) -> None:
    """Log a text at level INFO that is for the terminal as well."""
    logger.info(text, extra=_NOTICE)


class _ForPeople(logging.Handler):
    """Passes on warnings and notices, each text once."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record that is for people."""
        is_warning = record.levelno >= logging.WARNING
        if not (is_warning or getattr(record, "notice", False)):
            return
        text = f"{record.levelname.lower()}: {record.getMessage()}" if is_warning else record.getMessage()
        if text not in self._shown:
            self._shown.add(text)
            try:
                self._show(text)
            except Exception:  # a terminal that is gone is no reason to end a run
                self.handleError(record)


class LastResort(logging.Handler):
    """Prints warnings to the error stream where nobody else shows them.

    Python does so by itself only as long as no handler at all is there, and a log file is one.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning."""
        others = [*PACKAGE_LOGGER.handlers, *logging.getLogger().handlers]
        if not any(h is not self and not isinstance(h, logging.FileHandler) for h in others):
            print(record.getMessage(), file=sys.stderr)


@contextmanager
def shown_by(show: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, warnings and notices of the package are passed to a function, each text once."""
    handler, level = _ForPeople(show), PACKAGE_LOGGER.level
    if not PACKAGE_LOGGER.isEnabledFor(logging.INFO):
        PACKAGE_LOGGER.setLevel(logging.INFO)
    PACKAGE_LOGGER.addHandler(handler)
    try:
        yield
    finally:
        PACKAGE_LOGGER.removeHandler(handler)
        if PACKAGE_LOGGER.level == logging.INFO:
            PACKAGE_LOGGER.setLevel(level)
