"""What a run does, in order: its units, between which it can be stopped and resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gfb_brevitas.search.config import SearchConfig

UnitKind = Literal["calibrate", "step", "epoch", "round"]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of a run.

    Attributes:
        kind: What is done: calibration, a gradient-free step, an epoch, or the end of a round.
        round: Round, from 1; 0 is what comes before the first.
        number: Step of the round, from 1; epoch of the run, from 0; calibration of the run, from 0.
    """

    kind: UnitKind
    round: int = 0
    number: int = 0


def planned_units(search: SearchConfig, *, calibrate: bool, searched: bool) -> tuple[Unit, ...]:
    """All units of a run.

    Args:
        search: Rounds, steps and epochs.
        calibrate: Whether clipping parameters are started from data.
        searched: Whether there are gradient-free steps.
    """
    units = [Unit(kind="calibrate")] if calibrate else []
    units += [Unit(kind="epoch", number=epoch) for epoch in range(search.pretrain_epochs)]
    if calibrate and search.pretrain_epochs and search.pretrain_bits is not None:
        units.append(Unit(kind="calibrate", number=1))
    for r in range(1, search.rounds + 1):
        first = search.pretrain_epochs + (r - 1) * search.epochs_per_round
        steps = search.steps_per_round if searched else 0
        units += [Unit(kind="step", round=r, number=step) for step in range(1, steps + 1)]
        units += [Unit(kind="epoch", round=r, number=first + e) for e in range(search.epochs_per_round)]
        units.append(Unit(kind="round", round=r))
    return tuple(units)


def step_name(unit: Unit) -> str:
    """Name of a gradient-free step that sorts in the order of the run."""
    return f"round-{unit.round:02d}/step-{unit.number:02d}"
