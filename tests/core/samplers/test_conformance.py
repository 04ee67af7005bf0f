"""Optuna's own conformance suite for samplers."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from gfb_brevitas.samplers import CmaSampler


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestCmaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return CmaSampler


class TestCmaSamplerWithSearchSpace(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """A search space that is partly, and partly not, what the suite's objectives ask for."""

    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        space = {
            "w": FloatDistribution(0.0, 3.0),
            "k": IntDistribution(1, 8, log=True),
            "c": CategoricalDistribution(["a", "b"]),
            "one": IntDistribution(4, 4),
        }
        return lambda: CmaSampler(search_space=space, population_size=3, seed=0)
