from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.costs import MeanActivationBits, MeanWeightBits
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from tests.core.costs.small_profiles import quantizer, two_layers

BITS = np.array([[2, 4, 8, 6], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    "cost, expected",
    [
        (MeanWeightBits(), (10 * 2 + 30 * 6) / 40),
        (MeanWeightBits(weighting="quantizers"), (2 + 6) / 2),
        (MeanActivationBits(), (100 * 4 + 60 * 8) / 160),
        (MeanActivationBits(weighting="quantizers"), (4 + 8) / 2),
    ],
)
def test_mean_by_hand(cost, expected):
    assert cost.bind(two_layers())(BITS).tolist() == [expected, 1.0]


@pytest.mark.parametrize("cost_type", [MeanWeightBits, MeanActivationBits])
def test_an_unknown_weighting_is_refused(cost_type):
    with pytest.raises(ConfigurationError, match="'macs'"):
        cost_type(weighting="macs")


def test_a_model_without_such_quantizers_has_no_mean():
    profile = ModelProfile(quantizers=(quantizer("a", "activation", 5),))
    with pytest.raises(ConfigurationError, match="0 searchable weight quantizers"):
        MeanWeightBits().bind(profile)


def test_quantizers_without_elements_have_no_mean_over_elements():
    profile = ModelProfile(quantizers=(quantizer("a", "activation", 0),))
    with pytest.raises(ConfigurationError, match="activation"):
        MeanActivationBits(weighting="elements").bind(profile)


@pytest.mark.parametrize(
    ("cost", "kind", "advice"),
    [
        (MeanActivationBits(), "weight", r"Budget\(cost=WeightSize\(\), \.\.\.\)"),
        (MeanWeightBits(), "activation", r"Budget\(cost=MeanActivationBits\(\), \.\.\.\)"),
    ],
)
def test_what_to_use_instead(cost, kind, advice):
    profile = ModelProfile(quantizers=(quantizer("a", kind, 5),))
    with pytest.raises(ConfigurationError, match=advice):
        cost.bind(profile)
