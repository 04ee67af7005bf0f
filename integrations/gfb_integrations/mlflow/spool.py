"""The events of a run on disk, from which they are delivered to MLflow.

Layout of the folder (``mlflow`` in the run folder)::

    events.jsonl      what the search reported, one event per line, in order
    courier.jsonl     what the courier adds: the machine's load, and that a search was killed
    delivered.json    how far both were delivered, and the ids of the MLflow runs
    courier.lock      held by the process that delivers
    courier.log       its error stream
    models/           models that are to be logged

Lines end with a checksum; one that is damaged is left out. Imported by the courier, so it does without the
rest of the package.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zlib import crc32

from gfb_brevitas.files import put_in_place

FOLDER = "mlflow"
EVENTS, OWN_EVENTS, STATE, MODELS = "events.jsonl", "courier.jsonl", "delivered.json", "models"
LOCK, LOG = "courier.lock", "courier.log"
SEARCH = "search"
"""Key of the parent run."""
EXPERIMENT = "gfb_brevitas"
"""Name of the experiment, unless the user has another one."""
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
        checksum = event.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return event if checksum == _checksum(event) else None


def _line(event: Event) -> bytes:
    text = json.dumps({**event, "checksum": _checksum(event)}, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"


def _checksum(event: Event) -> int:
    # Read back, a float is the same text again.
    return crc32(json.dumps(event, separators=(",", ":")).encode())


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
        if identity in self._seen:
            return False
        self._unwritten.append(_line(event))
        if identity is not None:
            self._seen.add(identity)
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
            with suppress(OSError):  # it may not be there; the reason is the other error
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
            document = _event((folder / STATE).read_bytes()) or {}
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
        with temporary.open("wb") as stream:
            stream.write(_line(vars(self)))
            stream.flush()
            os.fsync(stream.fileno())
        put_in_place(temporary, folder / STATE)


def is_delivered(folder: Path) -> bool:
    """Whether nothing is left to deliver."""
    delivered = Delivered.load(folder)
    files = [folder / EVENTS, folder / OWN_EVENTS]
    return not delivered.later and not any(read_lines(f, delivered.offsets.get(f.name, 0), 1) for f in files)


def without_password(text: str) -> str:
    """A URI, or a text with URIs in it, as it may be written to disk.

    Example:
        >>> without_password("API request to http://me:secret@host:5000/api failed")
        'API request to http://me@host:5000/api failed'
    """
    text = re.sub(r"(://[^/?#\s:@]*):[^/?#\s]*@", r"\1@", text)
    return re.sub(r"(?i)([?&](?:password|token|secret)=)[^&#\s]*", r"\1***", text)


def absolute(uri: str) -> str:
    """A URI that means the same from any folder.

    Example:
        >>> absolute("http://host:5000"), absolute("file:/data/mlruns"), absolute("/data/my runs")
        ('http://host:5000', 'file:///data/mlruns', 'file:///data/my%20runs')
    """
    parts = urlsplit(uri)
    if len(parts.scheme) < 2 and not uri.startswith("databricks"):  # a letter is a drive of Windows
        return Path(uri).resolve().as_uri()
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path)).resolve().as_uri()
    path, separator, options = uri.partition(":///")[2].partition("?")
    if parts.scheme.startswith("sqlite") and path not in ("", ":memory:"):
        return f"{parts.scheme}:///{Path(path).resolve()}{separator}{options}"
    return uri
