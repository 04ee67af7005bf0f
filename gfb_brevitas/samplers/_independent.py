"""Uniform draws for what CMA-ES does not search, without a random state that a new process would lose."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.samplers._coordinates import Coordinates


class UniformSampler(optuna.samplers.BaseSampler):
    """Draws each parameter on its own, determined by the seed, the trial's number and the parameter's name.

    Args:
        seed: Non-negative.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of the distribution; all values, or all cells of equal width, are equally likely."""
        rng = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        if isinstance(param_distribution, CategoricalDistribution):
            return param_distribution.choices[int(rng.integers(len(param_distribution.choices)))]
        if not isinstance(param_distribution, FloatDistribution | IntDistribution):
            raise ConfigurationError(
                f"Only float, integer and categorical parameters can be drawn; {param_name!r} is "
                f"{param_distribution}. Pass an independent_sampler that knows it."
            )
        coordinates = Coordinates({param_name: param_distribution})
        return coordinates.decode(rng.uniform(coordinates.lower, coordinates.upper))[param_name]
