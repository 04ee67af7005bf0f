"""Choosing one allocation at the end of a gradient-free step [ours].

The best of many noisy evaluations is rarely the best candidate. So a few of the best are evaluated
again on more data, together with the allocation that the step started from and the mean of the final
distribution, and the best of these wins: by the validation metric where the user has one, or else by the
loss. A loss with fixed weights misjudges very narrow activations: they keep outputs from being confident,
which it rewards, and lose accuracy all the same. So for each smallest width that candidates have, the best of
them takes part. What is chosen is always feasible, and full: no single width can be raised by a bit without
breaking a budget.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from gfb_brevitas.constraints import Constraints
from gfb_brevitas.evaluation.batches import Batch, Batches, one_pass
from gfb_brevitas.evaluation.evaluator import Evaluator
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed
from gfb_brevitas.evaluation.super_batch import SuperBatch
from gfb_brevitas.search.history import Candidate, CandidateSource
from gfb_brevitas.search.study import Generation
from gfb_brevitas.space import Bits, Vector

_SMALLEST_WIDTHS = 3

_logger = logging.getLogger(__name__)


@dataclass
class _Sample:
    """A sampled candidate: the sums of its losses and objective values over its evaluations."""

    bits: Bits
    feasible: bool
    loss: float = 0.0
    value: float = 0.0
    evaluations: int = 0


@dataclass
class SampledCandidates:
    """All different candidates of a step, with the means of what they were worth."""

    _samples: dict[bytes, _Sample] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, generation: Generation) -> None:
        """Take in a generation."""
        rows = zip(generation.bits, generation.losses, generation.values, generation.feasible, strict=True)
        for bits, loss, value, feasible in rows:
            sample = self._samples.setdefault(bits.tobytes(), _Sample(bits.copy(), bool(feasible)))
            sample.loss += float(loss)
            sample.value += float(value)
            sample.evaluations += 1

    def best(self, count: int, *, feasible: bool) -> list[Bits]:
        """The feasible (or infeasible) candidates with the smallest mean objective values, if finite."""
        known = [s for s in self._samples.values() if s.feasible == feasible and math.isfinite(s.value)]
        known.sort(key=lambda sample: sample.value / sample.evaluations)
        return [sample.bits for sample in known[:count]]

    def best_of_smallest_widths(self, count: int) -> list[Bits]:
        """The best feasible candidate for each smallest width; of at most ``count``, the narrowest ones."""
        found: dict[int, Bits] = {}
        for bits in self.best(len(self), feasible=True):
            found.setdefault(int(bits.min()), bits)
        return [found[width] for width in sorted(found)[:count]]

    def loss(self, bits: Bits) -> float:
        """Mean loss of a candidate; NaN if it was not sampled."""
        sample = self._samples.get(bits.tobytes())
        return math.nan if sample is None else sample.loss / sample.evaluations


def candidates_to_choose_from(
    samples: SampledCandidates,
    constraints: Constraints,
    *,
    incumbent: Bits,
    mean: Bits,
    count: int,
    fill: Callable[[Bits], Bits],
) -> list[Candidate]:
    """Different feasible candidates, not yet re-evaluated.

    Args:
        samples: What the step evaluated.
        constraints: The budgets.
        incumbent: Shape ``(quantizers,)``, the allocation that the step started from.
        mean: Shape ``(quantizers,)``, the mean of the final distribution.
        count: How many of the best feasible samples take part. When no sample was feasible, as many
            of the best infeasible ones take part as :meth:`Constraints.repair` leaves them.
        fill: Raises the widths of a feasible allocation until no single one can be raised.
    """
    wanted: list[tuple[Bits, CandidateSource]] = [
        (bits, "sampled")
        for bits in samples.best(count, feasible=True) + samples.best_of_smallest_widths(_SMALLEST_WIDTHS)
    ]
    if not wanted:
        wanted = [(bits, "sampled") for bits in samples.best(count, feasible=False)]
    wanted += [(incumbent, "incumbent"), (mean, "mean")]
    found: dict[bytes, Candidate] = {}
    for bits, source in wanted:
        feasible = bool(constraints.feasible(bits[None, :])[0])
        fitting = bits if feasible else constraints.repair(bits)
        kept = fill(fitting)
        as_it_was: CandidateSource = source if feasible else "repaired"
        candidate = Candidate(
            bits=tuple(kept.tolist()),
            source=as_it_was if np.array_equal(kept, fitting) else "filled",
            super_batch_loss=samples.loss(kept),
            reevaluated_loss=math.nan,
        )
        found.setdefault(kept.tobytes(), candidate)
    return list(found.values())


def reevaluated(
    candidates: list[Candidate],
    evaluator: Evaluator,
    batches: Batches,
    *,
    limit: int,
    chunk: int,
    seed: int,
    device: torch.device | None,
) -> list[Candidate]:
    """The candidates with their losses on more data, best first; those that are not finite last.

    Args:
        candidates: At least one.
        evaluator: Computes the losses.
        batches: The data; one pass at most.
        limit: Minibatches to use at most.
        chunk: Minibatches to hold in memory at a time.
        seed: Start of the random stream that the minibatches are drawn under.
        device: Where they are moved.

    When no loss is finite, the losses on super-batches decide, and without those the incumbent wins.
    """
    rows = np.array([candidate.bits for candidate in candidates], dtype=np.int64)
    total: Vector = np.zeros(len(rows))
    used = 0
    with RandomStream(seed).active():
        for part in _chunks(one_pass(batches, seed, limit), chunk):
            held = SuperBatch.of(part, seed=derive_seed(seed, used), device=device)
            total += len(part) * evaluator.losses(rows, held)
            used += len(part)
    losses = np.where(np.isfinite(total), total, math.nan) / used
    order = np.argsort(losses, kind="stable")  # NaN comes last
    if not np.isfinite(losses).any():
        order = np.argsort([candidate.super_batch_loss for candidate in candidates], kind="stable")
        _logger.warning("No candidate has a finite loss on the larger data; super-batch losses decide.")
    return [replace(candidates[i], reevaluated_loss=float(losses[i])) for i in order]


def by_metric(candidates: list[Candidate], metric: Callable[[Candidate], float]) -> list[Candidate]:
    """The candidates with their metrics, best first; among equal ones the smaller loss comes first."""
    known = [replace(candidate, metric=metric(candidate)) for candidate in candidates]
    return sorted(known, key=lambda candidate: (math.isnan(candidate.metric), -candidate.metric))


def _chunks(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while part := list(islice(iterator, size)):
        yield part
