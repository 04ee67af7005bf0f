"""Checkpoints: everything a run needs to go on, written whole, checked when read.

There is no random state in a checkpoint: every step and epoch starts its generators from a seed
derived from the run's seed and its own number.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.files import put_in_place, replacing
from gfb_brevitas.search.saving import saving

VERSION = 1
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BestState:
    """The best feasible state so far.

    Attributes:
        metric: Its validation metric.
        epochs: Epochs trained when it was reached.
        allocation: Its allocation, bits by quantizer name.
        model: Its ``state_dict``, on the CPU.
    """

    metric: float
    epochs: int
    allocation: dict[str, int]
    model: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run between two of its units (calibration, step, epoch, end of a round).

    Attributes:
        completed: Units that are done.
        records: Records in the history.
        allocation: Current allocation, bits by quantizer name.
        metric: Last validation metric.
        distribution: State of CMA-ES to carry over, as JSON; ``None`` if there is none.
        model: ``state_dict`` of the model, on the CPU.
        optimizer: ``state_dict`` of the optimizer, on the CPU.
        best: The best feasible state.
    """

    completed: int
    records: int
    allocation: dict[str, int]
    metric: float
    distribution: str | None
    model: dict[str, Any]
    optimizer: dict[str, Any]
    best: BestState | None


class CheckpointStore:
    """The last two checkpoints of a run, and its best state.

    Args:
        folder: Where ``latest.pt``, ``previous.pt`` and ``best.pt`` are.
    """

    def __init__(self, folder: Path) -> None:
        self.latest = folder / "latest.pt"
        self.previous = folder / "previous.pt"
        self.best = folder / "best.pt"
        self._latest_is_damaged = False

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; the one before is kept as ``previous.pt``.

        Raises:
            CheckpointError: If it cannot be written.
        """
        with saving(self.latest), replacing(self.latest) as temporary:
            _write(temporary, {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)})
            if self.latest.exists() and not self._latest_is_damaged:
                put_in_place(self.latest, self.previous)
        self._latest_is_damaged = False

    def save_best(self, best: BestState) -> None:
        """Write the best state by itself, for use outside the run.

        Raises:
            CheckpointError: If it cannot be written.
        """
        with saving(self.best), replacing(self.best) as temporary:
            _write(temporary, {f.name: getattr(best, f.name) for f in fields(best)})

    def load_best(self) -> BestState:
        """Read the best state.

        Raises:
            CheckpointError: If it is missing or damaged.
        """
        content = _read(self.best)
        try:
            return BestState(**content)
        except TypeError as error:
            raise _unfit(self.best, error) from error

    def load(self) -> Checkpoint:
        """Read the latest checkpoint, or the one before if the latest is damaged.

        Raises:
            CheckpointError: If neither can be read; it names the files.
        """
        problems = []
        for path in (self.latest, self.previous):
            try:
                content = _read(path)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            if problems:
                # Not to take the place of the good one before there is another.
                self._latest_is_damaged = True
                _logger.warning("%s Going on from %s instead.", " ".join(problems), path)
            return _checkpoint_of(content, path)
        raise CheckpointError(" ".join(problems) + " The run cannot be resumed; start it anew.")


def _checkpoint_of(content: dict[str, Any], path: Path) -> Checkpoint:
    try:
        best = content.pop("best")
        return Checkpoint(**content, best=None if best is None else BestState(**best))
    except (KeyError, TypeError) as error:
        raise _unfit(path, error) from error


def _unfit(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {str(path)!r} holds something else than this release saves: {error}. Use the "
        "release that wrote it, or start the run anew."
    )


def model_state(model: nn.Module) -> dict[str, Any]:
    """A model's ``state_dict``."""
    with warnings.catch_warnings():
        # Brevitas' zero points call state_dict in a way that torch deprecates.
        warnings.filterwarnings("ignore", category=FutureWarning, message="Positional args are being")
        return model.state_dict()


def load_model_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Load a ``state_dict``.

    Raises:
        CheckpointError: If it is not of such a model.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"The checkpoint's weights do not fit the model: {error} Resume with a model that was made "
            "anew in the same way."
        ) from error


def snapshot(model: nn.Module) -> dict[str, Any]:
    """A copy of a model's ``state_dict`` on the CPU that training does not change."""
    state = model_state(model)
    copied: OrderedDict[str, Any] = OrderedDict((name, _copied(value)) for name, value in state.items())
    # Module versions, which load_state_dict looks for in this attribute.
    setattr(copied, "_metadata", deepcopy(getattr(state, "_metadata", None)))  # noqa: B010
    return copied


def on_cpu(value: Any) -> Any:
    """Nested dicts, lists and tuples with all tensors copied to the CPU."""
    if isinstance(value, Mapping):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(item) for item in value)
    return _copied(value)


def content_digest(value: Any) -> str:
    """A hash of nested dicts, lists, tuples, tensors and plain values."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _copied(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else deepcopy(value)


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)};".encode())
        for key, item in value.items():
            digest.update(f"{key!r};".encode())
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"sequence {len(value)};".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{value!r};".encode())


def _write(path: Path, content: dict[str, Any]) -> None:
    best = content.get("best")
    if isinstance(best, BestState):
        content = {**content, "best": {f.name: getattr(best, f.name) for f in fields(best)}}
    torch.save({"version": VERSION, "digest": content_digest(content), "content": content}, path)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"The checkpoint {str(path)!r} is missing.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a damaged file
            document = torch.load(path, map_location="cpu", weights_only=True)
        version, digest, content = document["version"], document["digest"], document["content"]
    except Exception as error:  # whatever a damaged file makes the reader raise
        reason = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(f"The checkpoint {str(path)!r} is damaged: {reason}.") from error
    if version != VERSION:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} has version {version!r}; this release reads version {VERSION}."
        )
    if digest != content_digest(content):
        raise CheckpointError(f"The checkpoint {str(path)!r} is damaged: its content was changed.")
    return dict(content)
