from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.costs import ActivationMemory
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from tests.core.costs.small_profiles import quantizer, two_layers

BITS = np.array([[8, 2, 4, 8], [1, 1, 8, 1]])


def test_the_sum_counts_every_call():
    assert ActivationMemory().bind(two_layers())(BITS).tolist() == [100 * 2 + 60 * 4, 100 + 60 * 8]


def test_the_largest_is_one_call_of_one_tensor():
    largest = ActivationMemory(total="largest").bind(two_layers())
    # skip.act makes 60 elements in all, 40 of them in its largest call.
    assert largest(BITS).tolist() == [max(100 * 2, 40 * 4), max(100 * 1, 40 * 8)]


def test_an_unknown_total_is_refused():
    with pytest.raises(ConfigurationError, match="'mean'"):
        ActivationMemory(total="mean")


@pytest.mark.parametrize("total", ["sum", "largest"])
def test_a_model_without_activations_is_refused(total):
    profile = ModelProfile(quantizers=(quantizer("w", "weight", 5),))
    with pytest.raises(ConfigurationError, match="activation quantizer"):
        ActivationMemory(total=total).bind(profile)
