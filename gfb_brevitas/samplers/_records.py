"""What the sampler writes beside a study's trials, and how it is read back.

Two kinds of JSON text in the system attributes of trials are the sampler's whole memory:

- a *draw*: from which distribution a trial was drawn, and with which random numbers;
- an *update*: which finished trials turned one distribution into the next. The trial that is drawn
  first after the update carries it.

A distribution is known by a digest of its history (the settings of the run and the trials of every
update), so processes that disagree notice it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

_DRAW = "gfb_brevitas:cma:draw"
_UPDATE = "gfb_brevitas:cma:update"
_LONGEST_TEXT = 1900  # some storages hold 2046 characters, the escapes of quotes included


def digest(*parts: str) -> str:
    """A short name for some texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Where a trial's parameters came from.

    Attributes:
        run: Digest of the settings; the name of the run's first distribution.
        distribution: Digest of the distribution that the trial was drawn from.
        generation: Its number, for people.
        seed: Seed of the sampler that drew.
        index: Number of the trial; seed and index determine the random numbers.
    """

    run: str
    distribution: str
    generation: int
    seed: int
    index: int


@dataclass(frozen=True, kw_only=True)
class Update:
    """How a distribution came from another.

    Attributes:
        run: As in :class:`Draw`.
        parent: Digest of the distribution before.
        generation: Number of the distribution after.
        told: Numbers of the trials that moved it, ascending.
    """

    run: str
    parent: str
    generation: int
    told: tuple[int, ...]

    @property
    def child(self) -> str:
        """Digest of the distribution after."""
        return digest(self.parent, _as_ranges(self.told))


def draw_attributes(draw: Draw) -> dict[str, str]:
    """System attributes that hold a draw."""
    return {_DRAW: json.dumps(asdict(draw))}


def update_attributes(update: Update) -> dict[str, str]:
    """System attributes that hold an update; more than one if the text is long."""
    text = json.dumps({**asdict(update), "told": _as_ranges(update.told)})
    parts = [text[i : i + _LONGEST_TEXT] for i in range(0, len(text), _LONGEST_TEXT)]
    return {f"{_UPDATE}:{i}/{len(parts)}": part for i, part in enumerate(parts)}


def read_draw(attributes: Mapping[str, Any]) -> Draw | None:
    """The draw in a trial's system attributes, if there is one."""
    text = attributes.get(_DRAW)
    return None if text is None else Draw(**json.loads(text))


def read_update(attributes: Mapping[str, Any]) -> Update | None:
    """The update in a trial's system attributes, if it is there in full."""
    keys = [key for key in attributes if key.startswith(_UPDATE)]
    if not keys:
        return None
    count = int(keys[0].rsplit("/", 1)[1])
    parts = [attributes.get(f"{_UPDATE}:{i}/{count}") for i in range(count)]
    if None in parts:
        return None
    content = json.loads("".join(map(str, parts)))
    return Update(**{**content, "told": _from_ranges(content["told"])})


class Ledger:
    """A study's draws and updates, kept up to date without reading settled trials again."""

    def __init__(self) -> None:
        self._seen = 0
        self._open: set[int] = set()
        self.complete: dict[str, dict[int, tuple[FrozenTrial, Draw]]] = {}
        self.updates: dict[str, dict[str, tuple[int, Update]]] = {}

    def refresh(self, study: optuna.Study) -> None:
        """Take in what happened since the last call."""
        trials = study.get_trials(deepcopy=False)
        # Positions are numbers, except in a pruner's view of a part of a study.
        in_full = not trials or trials[-1].number == len(trials) - 1
        unsettled = sorted(self._open.union(range(self._seen, len(trials))))
        for trial in (trials[i] for i in unsettled) if in_full else trials:
            self._read(trial)
        self._seen = len(trials) if in_full else self._seen

    def _read(self, trial: FrozenTrial) -> None:
        update = read_update(trial.system_attrs)
        if update is not None:
            self.enter(trial.number, update)
        if not trial.state.is_finished():
            self._open.add(trial.number)
            return
        self._open.discard(trial.number)
        draw = read_draw(trial.system_attrs)
        if draw is not None and trial.state == TrialState.COMPLETE:
            self.complete.setdefault(draw.run, {})[trial.number] = (trial, draw)

    def enter(self, number: int, update: Update) -> None:
        """Note the update that a trial carries; of equal ones the first trial's counts."""
        known = self.updates.setdefault(update.run, {})
        child = update.child
        if child not in known or number < known[child][0]:
            known[child] = (number, update)


def _as_ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers as text: 0-3,7."""
    runs = []
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        runs.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(runs)


def _from_ranges(text: str) -> tuple[int, ...]:
    bounds = [part.split("-") for part in text.split(",")]
    return tuple(n for ends in bounds for n in range(int(ends[0]), int(ends[-1]) + 1))
