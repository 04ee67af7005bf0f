from __future__ import annotations

import pytest

import gfb_brevitas as gfb
from tests.core.dataflow.networks import Residual, perceptron, plain, searchable

NETWORKS = {"plain": plain, "residual": Residual, "perceptron": perceptron}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> gfb.SearchableModel:
    """Each network in turn."""
    return searchable(NETWORKS[request.param]())


@pytest.fixture(scope="module")
def plain_network() -> gfb.SearchableModel:
    return searchable(plain())


@pytest.fixture(scope="module")
def residual_network() -> gfb.SearchableModel:
    return searchable(Residual())
