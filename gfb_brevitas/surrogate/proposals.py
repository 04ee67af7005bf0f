"""Candidates that a surrogate expects most of [ours]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.space import Bits, Vector
from gfb_brevitas.surrogate.loss_model import LossModel

_CHAINS = 4  # searches per proposal
_MOST_FITTED = 320
_MOST_OPTIMISTIC = 1.5  # standard deviations


class Proposals:
    """Chooses the candidates of a generation by a search on the surrogate instead of the network.

    Every proposal minimises loss + penalty with the loss ``mean - k * standard deviation`` of the
    surrogate, for its own optimism k from 0 to 1.5. The search moves one width, or trades bits between
    two or three, and keeps what is better; it starts at the best evaluated candidates. Penalties are
    known exactly, so nothing is evaluated whose cost alone rules it out, and nothing twice.

    Args:
        constraints: The budgets and the search space.
        overlap: In how many generations a minibatch takes part; 0 when the super-batch stays.
        rounds: Moves that each search tries.
    """

    def __init__(self, constraints: Constraints, *, overlap: int = 0, rounds: int = 60) -> None:
        self._constraints = constraints
        self._groups = WidthGroups(constraints.space)
        self._free = np.flatnonzero(self._groups.high > self._groups.low)
        self._model = LossModel(overlap)
        self._rounds = rounds
        self._widths: Bits = np.empty((0, len(self._groups.low)), dtype=np.int64)
        self._losses: Vector = np.empty(0)
        self._penalties: Vector = np.empty(0)
        self._generations: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def add(self, bits: Bits, losses: Vector, generation: int) -> None:
        """Take in an evaluated generation: bits ``(P, quantizers)``, losses ``(P,)``."""
        self._widths = np.concatenate([self._widths, self._groups.collapse(bits)])
        self._losses = np.concatenate([self._losses, _to_digits(losses)])
        self._penalties = np.concatenate([self._penalties, self._constraints.penalty(bits)])
        self._generations = np.concatenate([self._generations, np.full(len(bits), generation)])

    def unknown(self, bits: Bits) -> Bits:
        """Those rows of ``bits``, shape ``(P, quantizers)``, that were not added before."""
        known = {row.tobytes() for row in self._widths}
        kept: Bits = bits[[row.tobytes() not in known for row in self._groups.collapse(bits)]]
        return kept

    def propose(self, count: int, rng: np.random.Generator) -> Bits:
        """At most ``count`` different candidates that were not evaluated; shape ``(P, quantizers)``."""
        used = self._most_useful()
        self._model.fit(self._widths[used][:, self._free], self._losses[used], self._generations[used])
        optimism = np.repeat(np.linspace(0.0, _MOST_OPTIMISTIC, count), _CHAINS)
        chains = _Chains(self._starts(len(optimism), rng), optimism)
        known = {row.tobytes() for row in self._widths}
        chains.consider(chains.widths, self._scores(chains.widths, optimism), known)
        for _ in range(self._rounds):
            moved = self._moved(chains.widths, rng)
            chains.consider(moved, self._scores(moved, optimism), known)
        return self._groups.expand(chains.chosen(_CHAINS, known))

    def _starts(self, count: int, rng: np.random.Generator) -> Bits:
        order = np.argsort(self._values(), kind="stable")
        best = order[: max(4, len(order) // 8)]
        starts: Bits = self._widths[rng.choice(best, size=count)]
        starts[::2] = self._widths[order[0]]
        return starts

    def _values(self) -> Vector:
        return np.nan_to_num(self._losses + self._penalties, nan=np.inf, posinf=np.inf)

    def _most_useful(self) -> NDArray[np.int64]:
        """The best candidates and the latest ones: the time of a fit grows with the cube of their number."""
        count = len(self._losses)
        if count <= _MOST_FITTED:
            return np.arange(count)
        latest = np.arange(count - _MOST_FITTED // 4, count)
        best = np.argsort(self._values(), kind="stable")
        best = best[~np.isin(best, latest)][: _MOST_FITTED - len(latest)]
        return np.sort(np.concatenate([best, latest]))

    def _scores(self, widths: Bits, optimism: Vector) -> Vector:
        mean, deviation = self._model.predict(widths[:, self._free])
        losses = self._model.losses(mean - optimism * deviation)
        total: Vector = losses + self._constraints.penalty(self._groups.expand(widths))
        return total

    def _moved(self, widths: Bits, rng: np.random.Generator) -> Bits:
        moved, rows = widths.copy(), np.arange(len(widths))
        changes = rng.choice([1, 2, 3], p=[0.2, 0.5, 0.3], size=len(widths))
        sign = rng.choice([-1, 1], size=len(widths))
        for change in range(3):
            column = rng.choice(self._free, size=len(widths))
            moved[rows, column] += np.where(changes > change, sign, 0)
            sign = -sign
        inside: Bits = np.clip(moved, self._groups.low, self._groups.high)
        return inside


def _to_digits(losses: Vector) -> Vector:
    """Losses to four significant digits: what is below is rounding noise, which would lead searches apart."""
    return np.array([float(f"{loss:.4g}") for loss in losses])


class _Chains:
    """Searches that run side by side: where each is, and the best new candidate that it met."""

    def __init__(self, widths: Bits, optimism: Vector) -> None:
        self.widths = widths.copy()
        self._scores: Vector = np.full(len(widths), np.inf)
        self._found: list[tuple[float, Bits | None]] = [(np.inf, None)] * len(optimism)

    def consider(self, widths: Bits, scores: Vector, known: set[bytes]) -> None:
        for i in np.flatnonzero(scores < [score for score, _ in self._found]).tolist():
            if widths[i].tobytes() not in known:
                self._found[i] = float(scores[i]), widths[i].copy()
        better = scores < self._scores
        self.widths[better], self._scores[better] = widths[better], scores[better]

    def chosen(self, group: int, known: set[bytes]) -> Bits:
        """The best of every ``group`` searches that is not known, each once."""
        chosen: dict[bytes, Bits] = {}
        for first in range(0, len(self._found), group):
            for _, widths in sorted(self._found[first : first + group], key=lambda found: found[0]):
                if widths is not None and widths.tobytes() not in chosen:
                    chosen[widths.tobytes()] = widths
                    break
        rows: Bits = np.array(list(chosen.values()), dtype=np.int64).reshape(-1, self.widths.shape[1])
        return rows
