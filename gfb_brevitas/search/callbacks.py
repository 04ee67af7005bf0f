"""Callbacks: being told what a run does, while it does it.

A callback is any object that has some of the methods of :class:`Callback`. Each receives one record
(:mod:`gfb_brevitas.search.history`) after what it describes is done and saved. An exception in a
callback ends the run; the run can be resumed.

After a resume, the generations of a step that was under way are reported again. Everything before is
in ``StartRecord.history``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search.history import (
    CalibrationRecord,
    EpochRecord,
    GenerationRecord,
    History,
    Record,
    RoundRecord,
    StepRecord,
)


@dataclass(frozen=True, kw_only=True)
class StartRecord:
    """The beginning of a run, or its continuation.

    Attributes:
        configuration: Everything that makes the run what it is, as plain data (``config.json``).
        run_folder: The run's folder, if it has one.
        resumed: Whether the run goes on from a checkpoint.
        history: What happened before; empty unless resumed.
        name: Name of the run: that of its Optuna study, and the first part of those of its steps.
        run_id: The id that the run got when it began, and keeps when it is resumed.
    """

    configuration: Mapping[str, Any]
    run_folder: Path | None
    resumed: bool
    history: History
    name: str = ""
    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class EndRecord:
    """The end of a run.

    Attributes:
        summary: As :meth:`gfb_brevitas.search.SearchResult.summary`.
        run_folder: The run's folder, if it has one.
    """

    summary: Mapping[str, Any]
    run_folder: Path | None


class Callback:
    """Base class with methods that do nothing; override what is of interest.

    Example:
        >>> class Print(Callback):
        ...     def on_epoch(self, record: EpochRecord) -> None:
        ...         print(record.epoch, record.metric)
    """

    def on_start(self, record: StartRecord) -> None:
        """The run starts or goes on."""

    def on_calibrated(self, record: CalibrationRecord) -> None:
        """Clipping parameters were started from data."""

    def on_generation(self, record: GenerationRecord) -> None:
        """A generation of CMA-ES was evaluated."""

    def on_step(self, record: StepRecord) -> None:
        """A gradient-free step chose an allocation."""

    def on_epoch(self, record: EpochRecord) -> None:
        """A gradient-based epoch was trained and validated."""

    def on_round(self, record: RoundRecord) -> None:
        """A round ended."""

    def on_end(self, record: EndRecord) -> None:
        """The run ended."""


class AnyCallback(Protocol):
    """What the search takes as a callback: any object. Methods that it lacks are not called."""


_METHODS: dict[type[Any], str] = {
    StartRecord: "on_start",
    CalibrationRecord: "on_calibrated",
    GenerationRecord: "on_generation",
    StepRecord: "on_step",
    EpochRecord: "on_epoch",
    RoundRecord: "on_round",
    EndRecord: "on_end",
}


def notify(callbacks: Iterable[AnyCallback], record: Record | StartRecord | EndRecord) -> None:
    """Pass a record to the method for it of every callback that has one."""
    for callback in callbacks:
        method = getattr(callback, _METHODS[type(record)], None)
        if method is not None:
            method(record)


def require_callbacks(callbacks: object) -> None:
    """Check what the user passed as ``callbacks``.

    Raises:
        ConfigurationError: If it is no sequence, or one of them would never be called.
    """
    if not isinstance(callbacks, Sequence):
        raise ConfigurationError(f"`callbacks` must be a list or tuple; got {type(callbacks).__name__!r}.")
    for callback in callbacks:
        if isinstance(callback, type):
            raise ConfigurationError(
                f"`callbacks` must be objects; got the class {callback.__name__!r}. Make one of it first."
            )
        if not any(callable(getattr(callback, method, None)) for method in _METHODS.values()):
            raise ConfigurationError(
                f"A callback has at least one of the methods {', '.join(_METHODS.values())}; got "
                f"{callback!r:.60}, which has none."
            )
