"""Calls into drivers that may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")


def within(limit_s: float, call: Callable[[], _Value]) -> _Value:
    """What a call returns, or raises, if it comes back in time.

    One that does not is left behind in its thread, which keeps neither the caller nor the end of the
    program waiting.

    Example:
        >>> within(5.0, lambda: 3)
        3

    Args:
        limit_s: Seconds to wait.
        call: What to do.

    Raises:
        TimeoutError: If it is not back after so long.
    """
    values: list[_Value] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            values.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="gfb-limited-call", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not values:
        raise TimeoutError(f"no answer for {limit_s:g} s")
    return values[0]
