"""A Gaussian process of the loss over log2 of the bit widths [ours].

The kernel and the treatment of the scale follow Rasmussen and Williams, "Gaussian Processes for Machine
Learning" (2006), sections 4.2.1 (Matern 5/2) and 5.4.1 (marginal likelihood).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.space import Bits, Vector

Matrix = NDArray[np.float64]

_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_NOISES = (1e-4, 1e-3, 1e-2, 1e-1)
_LARGEST_SPREADS = 2.0


class LossModel:
    """Predicts the losses of candidates from those that were evaluated.

    Losses enter as ``log(1 + (loss - smallest) / s)``, with ``s`` the distance of the median from the
    smallest: what is far from the best ones counts less, and neither sign nor scale of the loss matters.
    Losses of different super-batches differ by an offset that the overlap of the super-batches ties
    together; it is no part of a prediction.

    Args:
        overlap: In how many generations a minibatch takes part; 0 when the super-batch stays.
    """

    def __init__(self, overlap: int = 0) -> None:
        self.overlap = overlap
        self._widths: Matrix = np.empty((0, 0))

    def fit(self, widths: Bits, losses: Vector, generations: NDArray[np.int64]) -> None:
        """Take in everything that was evaluated.

        Args:
            widths: Shape ``(N, coordinates)``, bits.
            losses: Shape ``(N,)``; what is not finite counts as the worst.
            generations: Shape ``(N,)``, the generation of each.
        """
        self._widths = np.log2(widths)
        scores = self._scores(losses)
        self._centre, self._spread = float(scores.mean()), float(scores.std()) or 1.0
        standard = (scores - self._centre) / self._spread
        squares = _squared_distances(self._widths, self._widths)
        offsets = self._offsets(generations)
        fits = [self._fit(squares, offsets, standard, *pair) for pair in product(_LENGTHS, _NOISES)]
        _, self._length, self._whitening, self._weights, self._variance = min(fits, key=lambda fit: fit[0])

    def predict(self, widths: Bits) -> tuple[Vector, Vector]:
        """Mean and standard deviation of the scores of candidates of shape ``(P, coordinates)``."""
        squares = _squared_distances(np.log2(widths), self._widths)
        kernel = _matern(squares, self._length)
        explained = self._whitening @ kernel.T
        variance = np.maximum(1.0 - (explained**2).sum(axis=0), 1e-9) * self._variance
        return kernel @ self._weights * self._spread + self._centre, np.sqrt(variance) * self._spread

    def losses(self, scores: Vector) -> Vector:
        """The losses that scores stand for; shape as given."""
        bounded = np.clip(scores, -20.0, 20.0)
        found: Vector = self._smallest + self._unit * np.expm1(bounded)
        return found

    def _scores(self, losses: Vector) -> Vector:
        finite = losses[np.isfinite(losses)]
        known = np.where(np.isfinite(losses), losses, finite.max(initial=-np.inf) if len(finite) else 0.0)
        self._smallest = float(known.min())
        self._unit = float(np.median(known) - self._smallest) or 1.0
        scores = np.log1p((known - self._smallest) / self._unit)
        # A few catastrophic candidates must not decide the scale.
        scores = np.minimum(scores, _LARGEST_SPREADS * np.median(scores) + 1e-12)
        return np.asarray(scores)

    def _offsets(self, generations: NDArray[np.int64]) -> Matrix:
        if not self.overlap:
            return np.zeros((len(generations), len(generations)))
        apart = np.abs(generations[:, None] - generations[None, :])
        shared: Matrix = 0.05 * np.maximum(0.0, 1.0 - apart / self.overlap)
        return shared

    def _fit(
        self, squares: Matrix, offsets: Matrix, scores: Vector, length: float, noise: float
    ) -> tuple[float, float, Matrix, Vector, float]:
        count = len(scores)
        covariance = _matern(squares, length) + offsets + noise * np.eye(count)
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:  # rows that are all but equal, and little noise
            return np.inf, length, np.eye(count), np.zeros(count), 1.0
        # The inverse of so small a factor is cheap, and makes every prediction one product.
        whitening = np.linalg.solve(factor, np.eye(count))
        weights = whitening.T @ (whitening @ scores)
        variance = max(float(scores @ weights) / count, 1e-9)
        surprise = 0.5 * count * np.log(variance) + float(np.log(np.diag(factor)).sum())
        return surprise, length, whitening, weights, variance


def _squared_distances(a: Matrix, b: Matrix) -> Matrix:
    """Mean squared differences of rows; shape ``(len(a), len(b))``."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0) / a.shape[1])


def _matern(squares: Matrix, length: float) -> Matrix:
    scaled = np.sqrt(5.0 * squares) / length
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))
