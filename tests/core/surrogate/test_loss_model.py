from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.space import Bits, Vector
from gfb_brevitas.surrogate import LossModel

RNG = np.random.default_rng(0)
WIDTHS = RNG.integers(1, 9, size=(120, 6))
WEIGHTS = np.array([4.0, 1.0, 0.5, 0.2, 0.1, 2.0])


def true_losses(widths: Bits) -> Vector:
    losses: Vector = (WEIGHTS * 4.0**-widths).sum(axis=1)
    return losses


def fitted(losses: Vector, generations: Vector | None = None, overlap: int = 0) -> LossModel:
    model = LossModel(overlap)
    none = np.zeros(len(losses), dtype=np.int64)
    model.fit(WIDTHS[: len(losses)], losses, none if generations is None else generations)
    return model


def rank_correlation(a: Vector, b: Vector) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def test_it_ranks_candidates_that_it_has_not_seen() -> None:
    mean, deviation = fitted(true_losses(WIDTHS[:90])).predict(WIDTHS[90:])
    assert rank_correlation(mean, true_losses(WIDTHS[90:])) > 0.9
    assert (deviation > 0).all()


def test_it_is_surer_where_it_has_seen_something() -> None:
    model = fitted(true_losses(WIDTHS[:90]))
    assert model.predict(WIDTHS[:90])[1].max() < np.median(model.predict(WIDTHS[90:])[1])


@pytest.mark.parametrize(("factor", "offset"), [(1e-3, 0.0), (1e3, -50.0)])
def test_scale_and_sign_of_the_loss_do_not_matter(factor: float, offset: float) -> None:
    plain, other = fitted(true_losses(WIDTHS[:90])), fitted(factor * true_losses(WIDTHS[:90]) + offset)
    np.testing.assert_allclose(plain.predict(WIDTHS)[0], other.predict(WIDTHS)[0], rtol=1e-5, atol=1e-6)
    predicted = plain.losses(plain.predict(WIDTHS)[0]), other.losses(other.predict(WIDTHS)[0])
    np.testing.assert_allclose(factor * predicted[0] + offset, predicted[1], rtol=1e-4, atol=1e-6 * factor)


def test_offsets_of_super_batches_are_not_taken_for_effects_of_widths() -> None:
    generations = np.arange(90) // 10
    shifted = true_losses(WIDTHS[:90]) + 0.3 * np.random.default_rng(1).standard_normal(9)[generations]
    unseen = true_losses(WIDTHS[90:])
    aware = rank_correlation(fitted(shifted, generations, overlap=1).predict(WIDTHS[90:])[0], unseen)
    unaware = rank_correlation(fitted(shifted).predict(WIDTHS[90:])[0], unseen)
    assert aware > unaware


def test_losses_that_are_not_finite_count_as_the_worst() -> None:
    losses = true_losses(WIDTHS)
    losses[losses > 0.5] = np.nan
    mean, _ = fitted(losses).predict(WIDTHS)
    assert np.isfinite(mean).all()
    assert mean[np.isnan(losses)].mean() > mean[~np.isnan(losses)].mean()


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_equal_losses_are_survived(value: float) -> None:
    mean, deviation = fitted(np.full(20, value)).predict(WIDTHS)
    assert np.isfinite(mean).all() and np.isfinite(deviation).all()
