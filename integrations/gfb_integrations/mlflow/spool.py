"""The events of a run on disk, from which they are delivered to MLflow.

Layout of the folder (``mlflow`` in the run folder)::

    events.jsonl      what the search reported, one event per line, in order
    courier.jsonl     what the courier adds: the machine's load, and that a search was killed
    delivered.json    how far both were delivered, and the ids of the MLflow runs
    courier.lock      held by the process that delivers
    models/           models that are to be logged

Imported by the courier, so it does without the rest of the package.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

FOLDER = "mlflow"
Event = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A whole line of an event file.

    Attributes:
        end: Offset of the byte behind it.
        event: What it says; ``None`` where it cannot be read.
    """

    end: int
    event: Event | None


def read_lines(path: Path, offset: int = 0, most: int | None = None) -> list[Line]:
    """The whole lines from an offset on; one that is still being written is left out."""
    if not path.exists():
        return []
    lines: list[Line] = []
    with path.open("rb") as stream:
        stream.seek(offset)
        while most is None or len(lines) < most:
            line = stream.readline()
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            lines.append(Line(offset, _event(line)))
    return lines


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


def note_state(states: dict[str, str], event: Event) -> None:
    """Take over what an event says about the state of a run."""
    if event["kind"] == "run":
        states.setdefault(event["run"], "RUNNING")
    elif event["kind"] == "status":
        states[event["run"]] = event["status"]


class EventFile:
    """Appends events to a file, each once.

    An event that cannot be written (a full disk) is kept in memory and written before the next one.

    Args:
        path: The file; made on the first append.

    Attributes:
        kinds: How many events of which kind were there before.
        states: The states of the runs, by their keys.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = read_lines(path)
        if path.exists() and path.stat().st_size != (end := lines[-1].end if lines else 0):
            os.truncate(path, end)  # a killed process left a part of a line
        self._seen = {line.event["id"] for line in lines if line.event and "id" in line.event}
        self.kinds = Counter(line.event["kind"] for line in lines if line.event)
        self.states: dict[str, str] = {}
        for line in lines:
            note_state(self.states, line.event or {"kind": ""})
        self._unwritten: list[bytes] = []

    def append(self, event: Event) -> bool:
        """Add an event, unless one with its ``id`` is there already; whether it was added.

        Raises:
            OSError: If it cannot be written now.
        """
        identity = event.get("id")
        if identity is not None:
            if identity in self._seen:
                return False
            self._seen.add(identity)
        line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        self._unwritten.append(line)
        note_state(self.states, event)
        self.flush()
        return True

    def flush(self) -> None:
        """Write what could not be written before.

        Raises:
            OSError: If it still cannot.
        """
        if not self._unwritten:
            return
        # Not synced: the courier does that before it delivers, and what is lost with the machine's power
        # is made again from the run's history.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as stream:
                stream.write(b"".join(self._unwritten))
        except OSError:
            os.truncate(self.path, size)
            raise
        self._unwritten.clear()


@dataclass
class Delivered:
    """How far a spool was delivered, and where to.

    Attributes:
        uri: The MLflow server or store, without a password.
        experiment: Id of the experiment.
        runs: Ids of the MLflow runs, by the keys that events name them with.
        offsets: Bytes delivered of each event file.
        later: Files and models that could not be delivered yet.
    """

    uri: str | None
    experiment: str | None
    runs: dict[str, str]
    offsets: dict[str, int]
    later: list[Event]

    @classmethod
    def load(cls, folder: Path) -> Delivered:
        """Read ``delivered.json``; a damaged one counts as none, what is there is then compared first."""
        try:
            document = json.loads((folder / "delivered.json").read_text(encoding="utf-8"))
            return cls(
                uri=document["uri"],
                experiment=document["experiment"],
                runs=dict(document["runs"]),
                offsets={str(name): int(offset) for name, offset in document["offsets"].items()},
                later=list(document["later"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(uri=None, experiment=None, runs={}, offsets={}, later=[])

    def save(self, folder: Path) -> None:
        """Write ``delivered.json``, whole or not at all."""
        temporary = folder / f".delivered.{os.getpid()}.tmp"
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(vars(self), stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, folder / "delivered.json")


def is_delivered(folder: Path) -> bool:
    """Whether nothing is left to deliver."""
    delivered = Delivered.load(folder)
    files = [folder / "events.jsonl", folder / "courier.jsonl"]
    return not delivered.later and not any(read_lines(f, delivered.offsets.get(f.name, 0), 1) for f in files)


def without_password(uri: str) -> str:
    """A URI as it may be written to disk."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.netloc.rpartition('@')[2]}"))


def absolute(uri: str) -> str:
    """A URI that means the same from any folder."""
    scheme, separator, path = uri.partition(":///")
    if not separator and "://" not in uri and not uri.startswith("databricks"):
        return Path(uri).resolve().as_uri()
    if scheme == "sqlite" and separator and path not in ("", ":memory:"):
        return f"sqlite:///{Path(path).resolve()}"
    return uri
