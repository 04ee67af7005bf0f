"""The folder of a run: its configuration, history, checkpoints, log and results.

Layout::

    config.json       what makes the run what it is; a resumed run must be the same
    profile.json      what is searched: quantizers, budgets and what they come to at uniform widths
    history.jsonl     all records, one per line
    generations/      bits, losses and costs of every generation, one file per gradient-free step
    checkpoints/      latest.pt, previous.pt (to resume), best.pt (the best feasible state)
    unwritten.journal trials that the Optuna storage did not take; an Optuna journal itself
    allocation.json   the final bit allocation
    clipping.json     the learned clipping values per quantizer and width; there when the run has ended
    layer_costs.json  what each layer takes of the budgets; there when the run has ended
    summary.json      the result in numbers; there when the run has ended
    run.log           the log
    run.lock          held while a process works in the folder
    status.json       of what the run failed and when, until it goes on

JSON documents and lines end with a checksum; one that is not of its content is an error where it is read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.files import remove_unfinished, sealed, unsealed, write_text_atomically
from gfb_brevitas.notices import PACKAGE_LOGGER, LastResort
from gfb_brevitas.search.checkpoint import CheckpointStore
from gfb_brevitas.search.formats import FORMAT, VERSION, require_format, unreadable
from gfb_brevitas.search.generation_log import GenerationLog
from gfb_brevitas.search.history import History, Record, records_of
from gfb_brevitas.search.json_lines import JsonLinesFile
from gfb_brevitas.search.run_lock import RunLock, exclusive
from gfb_brevitas.search.run_status import forget_failure, note_failure
from gfb_brevitas.search.saving import saving
from gfb_brevitas.search.unwritten import UnwrittenTrials


class RunFolder:
    """A run's files.

    Args:
        path: The folder; made when the run starts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = path.absolute()  # the user's code may change the current folder
        self.checkpoints = CheckpointStore(path / "checkpoints")
        self.unwritten = UnwrittenTrials(path / "unwritten.journal")
        self._config = path / "config.json"
        self._history = JsonLinesFile(path / "history.jsonl")
        self._lock: RunLock | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the folder and write the log to it inside the block.

        Raises:
            CheckpointError: If another run works in the folder.
            ConfigurationError: If the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The run folder {str(self.path)!r} cannot be made: {error.strerror}. Use a folder that can "
                "be written to."
            ) from error
        with ExitStack() as stack:
            with saving(self.path):
                self._lock = stack.enter_context(exclusive(self.path / "run.lock"))
                for folder in (self.path, self.path / "checkpoints"):
                    remove_unfinished(folder)
                stack.enter_context(_logging_to(self.path / "run.log"))
            yield

    @property
    def holds_run(self) -> bool:
        """Whether a run was begun in the folder."""
        return self._config.exists()

    def clear(self) -> None:
        """Remove what an earlier run left that never began properly.

        Raises:
            CheckpointError: If there is more: then it is a run whose ``config.json`` got lost.
        """
        traces = [self._history.path, self.path / "summary.json", self.path / "allocation.json"]
        for path in traces:
            if path.exists() and path.stat().st_size:
                raise CheckpointError(
                    f"{str(self.path)!r} holds a run ({path.name!r}) whose {self._config.name!r} is missing. "
                    "Bring that file back, or use another folder."
                )
        self._history.keep(0)
        with saving(self.path):
            self.unwritten.keep({})
            for log in (self.path / "generations").glob("round-*/step-*.jsonl"):
                log.unlink()

    def begin(
        self,
        run_id: str,
        configuration: Mapping[str, Any],
        versions: Mapping[str, str],
        profile: Mapping[str, Any],
        *,
        threads: int,
    ) -> None:
        """Mark the folder as holding a run; to be called after the first checkpoint was saved."""
        document = {"format": FORMAT, "version": VERSION, "run": run_id, "versions": dict(versions)}
        document["threads"] = threads
        document["configuration"] = dict(configuration)
        with saving(self._config):
            _write(self.path / "profile.json", profile)
            _write(self._config, document)

    def require_same(self, configuration: Mapping[str, Any]) -> None:
        """Check that the folder's run is the one that is described.

        Raises:
            CheckpointError: Naming what differs, or that the file is damaged.
        """
        differences = _listed_differences(self._entry("configuration"), configuration)
        if differences:
            raise CheckpointError(
                f"The run in {str(self.path)!r} is another one: {differences}. Resume it with the same "
                f"arguments, or use another folder.{self._worth()}"
            )

    def _worth(self) -> str:
        """What to do with the run that is in the way, if nothing would be lost with it."""
        if any(record.get("kind") in ("epoch", "step", "generation") for record in self._history.read()):
            return ""
        return " Nothing of it was trained or searched yet: if it is of no use, remove the folder."

    def require_same_model(self, described: Mapping[str, Any]) -> None:
        """Check that the folder's run is of a model like the one that is described.

        Raises:
            CheckpointError: Naming what differs, or that there is no run or its file is damaged.
        """
        if not self.holds_run:
            raise CheckpointError(f"{str(self.path)!r} holds no run. Give the run folder of one.")
        configuration = self._entry("configuration")
        then = configuration.get("model") if isinstance(configuration, dict) else None
        differences = _listed_differences(then, described)
        if differences:
            raise CheckpointError(
                f"The run in {str(self.path)!r} is of another model: {differences}. Pass one that was made "
                "anew in the same way."
            )

    @property
    def threads(self) -> int | None:
        """How many threads the run computes with, if that was kept: sums depend on it in the last digits."""
        try:
            threads = self._entry("threads")
        except CheckpointError:
            return None
        return threads if isinstance(threads, int) and threads > 0 else None

    @property
    def run_id(self) -> str:
        """The id that the folder's run got when it began.

        Raises:
            CheckpointError: If the file that holds it is damaged.
        """
        return str(self._entry("run"))

    def _entry(self, key: str) -> Any:
        try:
            document = unsealed(json.loads(self._config.read_text(encoding="utf-8")))
            require_format(document, FORMAT, VERSION)
            return document[key]
        except (KeyError, OSError, ValueError, TypeError, RecursionError) as error:
            raise unreadable(self._config, error) from error

    def require_in_place(self) -> None:
        """Check that the folder is still the one that was opened.

        Raises:
            CheckpointError: If it was removed, moved or replaced.
        """
        if self._lock is not None:
            self._lock.require_in_place()

    def goes_on(self) -> None:
        """Forget of what the run failed before."""
        with saving(self.path):
            forget_failure(self.path)

    def failed(self, error: BaseException) -> None:
        """Keep of what the run ends here, if the folder is still there."""
        with suppress(CheckpointError):
            self.require_in_place()
            note_failure(self.path, error)

    def append(self, record: Record) -> None:
        """Add a record to the history.

        Raises:
            CheckpointError: If the folder is not there any more, or cannot be written to.
        """
        self.require_in_place()
        self._history.append(record.to_dict())

    def history(self, count: int) -> History:
        """The first ``count`` records; those after them are cut off.

        Raises:
            CheckpointError: If there are fewer.
        """
        documents = self._history.read()
        if len(documents) < count:
            raise CheckpointError(
                f"{str(self._history.path)!r} is damaged: the checkpoint speaks of {count} records, "
                f"{len(documents)} are readable."
            )
        history = records_of(self._history.path, documents[:count])
        self._history.keep(count)
        return history

    def generation_log(self, name: str, identity: Mapping[str, Any]) -> GenerationLog:
        """The log of a gradient-free step."""
        return GenerationLog(self.path / "generations" / f"{name}.jsonl", identity)

    @property
    def holds_result(self) -> bool:
        """Whether the results were written."""
        return all((self.path / name).exists() for name in ("allocation.json", "summary.json"))

    def finish(
        self,
        allocation: BitAllocation,
        summary: Mapping[str, Any],
        clipping: Mapping[str, Mapping[int, float]],
        layer_costs: Mapping[str, Any],
    ) -> None:
        """Write the results."""
        document = {"format": f"{FORMAT}.summary", "version": VERSION, **summary}
        with saving(self.path):
            allocation.save(self.path / "allocation.json")
            _write(self.path / "clipping.json", {name: dict(values) for name, values in clipping.items()})
            _write(self.path / "layer_costs.json", layer_costs)
            _write(self.path / "summary.json", document)


def add_to_summary(folder: Path, figures: Mapping[str, Any]) -> None:
    """Add figures to the ``summary.json`` of a run that has ended.

    Args:
        folder: The run's folder.
        figures: Plain data for JSON.

    Raises:
        CheckpointError: If there is no summary, or it is damaged or cannot be written.
    """
    path = folder / "summary.json"
    try:
        summary = unsealed(json.loads(path.read_text(encoding="utf-8"))) | dict(figures)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not the summary of a run: {error}.") from error
    with saving(path):
        _write(path, summary)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    write_text_atomically(path, json.dumps(sealed(document), indent=2) + "\n")


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk say, is no reason to say anything: other files are."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing."""


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level, last_resort = PACKAGE_LOGGER.level, LastResort()
    if not PACKAGE_LOGGER.isEnabledFor(logging.INFO):
        PACKAGE_LOGGER.setLevel(logging.INFO)
    PACKAGE_LOGGER.addHandler(handler)
    PACKAGE_LOGGER.addHandler(last_resort)
    try:
        yield
    finally:
        PACKAGE_LOGGER.removeHandler(handler)
        PACKAGE_LOGGER.removeHandler(last_resort)
        PACKAGE_LOGGER.setLevel(level)
        with suppress(OSError):  # of a full disk
            handler.close()


def _listed_differences(then: Any, now: Mapping[str, Any]) -> str:
    differences = list(_differences(then, json.loads(json.dumps(now))))
    return "; ".join(differences[:8]) + ("; ..." if len(differences) > 8 else "")


def _differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*then, *now)):
            missing = "(nothing)"
            yield from _differences(then.get(key, missing), now.get(key, missing), f"{name}.{key}".strip("."))
    elif _are_nested_lists(then, now):
        for place, (first, second) in enumerate(zip(then, now, strict=True)):
            yield from _differences(first, second, f"{name}[{place}]")
    elif then != now:
        yield f"{name} was {_short(then)} and is {_short(now)}"


def _are_nested_lists(then: Any, now: Any) -> bool:
    lists = isinstance(then, list) and isinstance(now, list) and len(then) == len(now)
    return lists and any(isinstance(item, dict) for item in (*then, *now))


def _short(value: Any) -> str:
    text = value if value == "(nothing)" else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
