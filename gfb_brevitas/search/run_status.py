"""What has become of a run: whether it runs, ended, failed, was interrupted, or was stopped from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gfb_brevitas.files import sealed, unsealed, write_text_atomically
from gfb_brevitas.search.formats import require_format, unreadable
from gfb_brevitas.search.run_lock import Holder, holder_of

FILE_NAME = "status.json"
_FORMAT, _VERSION = "gfb_brevitas.run.status", 1
_MOST_CHARACTERS = 2000

State = Literal["running", "ended", "failed", "interrupted", "stopped"]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What has become of a run.

    Attributes:
        state: ``"running"``: a process works on it. ``"ended"``: the result is there. ``"failed"``: an error
            ended it. ``"interrupted"``: somebody stopped it with Ctrl-C. ``"stopped"``: its process is not
            there any more and could not say why; it was killed, or the machine went down.
        since: When it failed or was interrupted, or when its last record was written.
        error: What it failed of; empty otherwise.
        process: The process that works on it, where it runs and that is known.
    """

    state: State
    since: datetime
    error: str = ""
    process: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == "ended"

    def in_words(self, now: datetime | None = None) -> str:
        """A clause of a sentence about the run.

        Example:
            >>> at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
            >>> RunStatus(state="failed", since=at, error="ValueError: no").in_words()
            'failed at 2026-01-02 03:04:05 UTC: ValueError: no'

        Args:
            now: The time; by default that of the clock.
        """
        at = self.since.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        match self.state:
            case "ended":
                return "has ended"
            case "failed":
                return f"failed at {at}: {self.error}"
            case "interrupted":
                return f"was interrupted at {at}"
            case "stopped":
                return (
                    "was stopped from outside (killed, say): no process works on it, and its last record is "
                    f"of {at}"
                )
        seconds = max(0.0, ((now or datetime.now(UTC)) - self.since).total_seconds())
        process = "" if self.process is None else f"process {self.process}, "
        return f"is running ({process}last record {_ago(seconds)} ago)"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        about: dict[str, Any] = {"state": self.state, "since": self.since.isoformat(timespec="seconds")}
        if self.error:
            about["error"] = self.error
        if self.process is not None:
            about["process"] = self.process
        return about


def note_failure(folder: Path, error: BaseException) -> None:
    """Write into a run's folder of what the run ends here, as far as the disk lets it."""
    interrupted = isinstance(error, KeyboardInterrupt)
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "state": "interrupted" if interrupted else "failed",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": "" if interrupted else _described(error),
    }
    with suppress(OSError):  # the error itself is raised, and matters more
        write_text_atomically(folder / FILE_NAME, json.dumps(sealed(document), indent=2) + "\n")


def forget_failure(folder: Path) -> None:
    """Remove what an earlier process said: the run goes on."""
    (folder / FILE_NAME).unlink(missing_ok=True)


def read_status(folder: Path) -> RunStatus:
    """What has become of the run in a folder, which holds one; nothing in it changes.

    Raises:
        CheckpointError: If the file with the failure is damaged.
    """
    holder = holder_of(folder / "run.lock")  # first: a run that ends meanwhile has ended
    last = _last_record(folder)
    if all((folder / name).exists() for name in ("allocation.json", "summary.json")):
        return RunStatus(state="ended", since=last)
    if isinstance(holder, Holder):
        return RunStatus(state="running", since=last, process=holder.process)
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:  # also of a version that wrote none
        return RunStatus(state="stopped", since=last)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        return _failure(unsealed(json.loads(text)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise unreadable(path, error) from error


def _failure(document: Mapping[str, Any]) -> RunStatus:
    require_format(document, _FORMAT, _VERSION)
    state: State = "interrupted" if document["state"] == "interrupted" else "failed"
    since = datetime.fromisoformat(document["time"])
    return RunStatus(state=state, since=since, error=str(document["error"]))


def _last_record(folder: Path) -> datetime:
    times = [0.0]
    for name in ("history.jsonl", "config.json"):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC)


def _described(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ..."


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
