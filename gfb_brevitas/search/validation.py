"""The validation metric: what decides which state of a run is returned."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation.batch_faults import require_samples
from gfb_brevitas.evaluation.batches import Batch, Batches, LossFunction, one_pass
from gfb_brevitas.evaluation.evaluator import mean_loss
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.evaluation.randomness import RandomStream, derive_seed

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

Metric = Callable[[nn.Module], float]
_logger = logging.getLogger(__name__)


class Validation:
    """Computes the metric of a model as it is; higher is better.

    Args:
        metric: The user's metric of a model in evaluation mode, or ``None`` for the negative mean
            loss over ``batches``.
        loss: ``loss(model, batch)``.
        batches: Validation data for the default metric.
        seed: The metric's random draws start from it, so they are the same every time.
        setting: What the user calls the metric.
    """

    def __init__(
        self,
        metric: Metric | None,
        loss: LossFunction,
        batches: Batches,
        *,
        seed: int,
        setting: str = "metric",
    ) -> None:
        if metric is not None and not callable(metric):
            raise ConfigurationError(f"`{setting}` must be None or a function metric(model); got {metric!r}.")
        self._metric, self._loss, self._batches, self._setting = metric, loss, batches, setting
        self._seed = derive_seed(seed, "validation")

    @property
    def is_users(self) -> bool:
        """Whether the metric is the user's own, and not the negative loss."""
        return self._metric is not None

    def __call__(self, model: SearchableModel) -> float:
        """The metric; NaN if it is not a finite number, which is worse than any number.

        Raises:
            ConfigurationError: If the user's metric does not return a number.
        """
        value = self._negative_loss(model) if self._metric is None else self._user_metric(self._metric, model)
        if math.isfinite(value):
            return value
        if self._setting == "metric":
            _logger.warning("The validation metric is %s; the state counts as worse than any other.", value)
        return math.nan

    def _negative_loss(self, model: SearchableModel) -> float:
        with RandomStream(self._seed).active():
            return -mean_loss(model, self._loss, self._numbered())

    def _numbered(self) -> Iterator[Batch]:
        """One pass over the data; an error on a batch, or one without samples, is told with its number."""
        for number, batch in enumerate(one_pass(self._batches, self._seed, name="validation_batches"), 1):
            require_samples(batch, f"Batch {number} of the validation data")
            yield batch

    def _user_metric(self, metric: Metric, model: SearchableModel) -> float:
        with inference_only(model), RandomStream(self._seed).active():
            value = metric(model)
        try:
            number = None if isinstance(value, str) else float(value)
        except (TypeError, ValueError, RuntimeError):
            number = None
        if number is None:
            raise ConfigurationError(
                f"`{self._setting}` must return a number; got {value!r}. Return one float, higher is better."
            )
        return number


def is_better(metric: float, best: float | None) -> bool:
    """Whether a metric is better than the best so far; NaN is better than nothing only."""
    if best is None:
        return True
    return metric > best or (math.isnan(best) and not math.isnan(metric))
