from __future__ import annotations

import math

import numpy as np
import pytest
from torch import Tensor, nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs import MeanWeightBits
from gfb_brevitas.evaluation import ReferenceEvaluator
from gfb_brevitas.search.history import Candidate
from gfb_brevitas.search.selection import SampledCandidates, by_metric, candidates_to_choose_from, reevaluated
from gfb_brevitas.search.study import Generation
from gfb_brevitas.sensitivity import Allocator
from tests.core.search.small_problem import loader, loss, searchable


def sampled(rows: list[list[int]], losses: list[float], feasible: list[bool]) -> Generation:
    values = np.array(losses) + np.where(feasible, 0.0, 1.0)
    return Generation(
        bits=np.array(rows),
        losses=np.array(losses),
        values=np.where(np.isfinite(values), values, np.inf),
        feasible=np.array(feasible),
    )


@pytest.fixture
def constraints() -> Constraints:
    """Weights of at most 4 bits on average; columns: weight, activation, weight."""
    return Constraints(searchable().space, [Budget(cost=MeanWeightBits(), limit=4.0)])


def chosen_from(
    samples: SampledCandidates, constraints: Constraints, count: int = 2
) -> dict[tuple[int, ...], str]:
    candidates = candidates_to_choose_from(
        samples,
        constraints,
        incumbent=np.array([8, 8, 8]),
        mean=np.array([3, 3, 3]),
        count=count,
        fill=lambda bits: bits,
    )
    assert constraints.feasible(np.array([c.bits for c in candidates])).all()
    return {candidate.bits: candidate.source for candidate in candidates}


def test_the_best_feasible_samples_take_part(constraints: Constraints) -> None:
    samples = SampledCandidates()
    samples.add(
        sampled([[2, 2, 2], [4, 4, 4], [8, 8, 7], [1, 1, 1]], [0.5, 0.3, 0.1, 0.9], [True, True, False, True])
    )
    found = chosen_from(samples, constraints)
    assert list(found.items())[:2] == [((4, 4, 4), "sampled"), ((2, 2, 2), "sampled")]
    assert found[3, 3, 3] == "mean"
    assert list(found.values()).count("repaired") == 1  # the incumbent, which is over budget
    assert found[1, 1, 1] == "sampled"  # the best of its smallest width
    assert len(found) == 5


def test_repeated_evaluations_count_by_their_mean(constraints: Constraints) -> None:
    samples = SampledCandidates()
    samples.add(sampled([[2, 2, 2], [4, 4, 4]], [0.1, 0.4], [True, True]))
    samples.add(sampled([[2, 2, 2]], [0.9], [True]))
    assert samples.loss(np.array([2, 2, 2])) == pytest.approx(0.5)
    assert next(iter(chosen_from(samples, constraints))) == (4, 4, 4)


def test_without_feasible_samples_the_best_are_repaired(constraints: Constraints) -> None:
    samples = SampledCandidates()
    samples.add(sampled([[8, 2, 8], [7, 6, 7], [6, 7, 6]], [0.3, 0.2, 0.1], [False] * 3))
    found = chosen_from(samples, constraints)
    assert set(found.values()) == {"repaired", "mean"}
    assert any(bits[1] == 7 for bits in found) and any(bits[1] == 6 for bits in found)
    assert not any(bits[1] == 2 for bits in found)


def test_a_sample_that_was_once_not_finite_is_not_trusted(constraints: Constraints) -> None:
    samples = SampledCandidates()
    samples.add(sampled([[2, 2, 2], [4, 4, 4]], [math.nan, 0.4], [True, True]))
    samples.add(sampled([[2, 2, 2]], [0.1], [True]))
    assert (2, 2, 2) not in chosen_from(samples, constraints)


def test_what_leaves_room_is_filled(constraints: Constraints) -> None:
    samples = SampledCandidates()
    samples.add(sampled([[2, 2, 2], [4, 8, 4]], [0.2, 0.1], [True, True]))
    allocator = Allocator(constraints)
    full = candidates_to_choose_from(
        samples,
        constraints,
        incumbent=np.array([2, 2, 2]),
        mean=np.array([3, 7, 5]),
        count=2,
        fill=allocator.fill,
    )
    assert all(allocator.is_full(np.array(candidate.bits)) for candidate in full)
    assert {candidate.bits: candidate.source for candidate in full} == {
        (4, 8, 4): "sampled",
        (3, 8, 6): "filled",
    }


def test_the_metric_decides_and_the_loss_among_equals() -> None:
    metrics = {(1, 1, 1): 0.5, (2, 2, 2): 0.9, (3, 3, 3): math.nan, (4, 4, 4): 0.9}
    found = by_metric(candidates(*metrics), lambda candidate: metrics[candidate.bits])
    assert [candidate.bits[0] for candidate in found] == [2, 4, 1, 3]
    assert found[0].metric == 0.9


def candidates(*rows: tuple[int, ...]) -> list[Candidate]:
    return [
        Candidate(bits=bits, source="sampled", super_batch_loss=0.1 * i, reevaluated_loss=math.nan)
        for i, bits in enumerate(rows)
    ]


def again(model: SearchableModel, function: object, limit: int = 8, chunk: int = 3) -> list[Candidate]:
    evaluator = ReferenceEvaluator(model, function)  # type: ignore[arg-type]
    return reevaluated(
        candidates((1, 1, 1), (2, 2, 2), (8, 8, 8)),
        evaluator,
        loader(256),
        limit=limit,
        chunk=chunk,
        seed=5,
        device=None,
    )


def test_reevaluation_does_not_depend_on_the_chunks_and_sorts() -> None:
    model = searchable()
    in_parts, whole = again(model, loss), again(model, loss, chunk=8)
    losses = [c.reevaluated_loss for c in in_parts]
    assert losses == sorted(losses)
    assert losses == pytest.approx([c.reevaluated_loss for c in whole])
    assert len(set(losses)) == 3


def test_reevaluation_takes_one_pass_at_most() -> None:
    calls = []

    def counted(model: nn.Module, batch: object) -> Tensor:
        calls.append(batch)
        return loss(model, batch)  # type: ignore[arg-type]

    again(searchable(), counted, limit=100)
    assert len(calls) == 3 * 8


def test_candidates_that_are_not_finite_come_last() -> None:
    model = searchable()

    def fragile(_: nn.Module, batch: object) -> Tensor:
        bad = math.nan if model.allocation["0.weight_quant"] == 8 else 1.0
        return loss(model, batch) * bad  # type: ignore[arg-type]

    result = again(model, fragile)
    assert result[-1].bits == (8, 8, 8) and math.isnan(result[-1].reevaluated_loss)
    assert all(math.isfinite(c.reevaluated_loss) for c in result[:-1])


def test_when_nothing_is_finite_super_batches_decide(caplog: pytest.LogCaptureFixture) -> None:
    model = searchable()
    result = again(model, lambda model, batch: loss(model, batch) * math.nan)
    assert [c.bits for c in result] == [(1, 1, 1), (2, 2, 2), (8, 8, 8)]
    assert "No candidate has a finite loss" in caplog.text
