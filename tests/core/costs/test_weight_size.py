from __future__ import annotations

import numpy as np

from gfb_brevitas.costs import WeightSize
from gfb_brevitas.profile import ModelProfile
from tests.core.costs.small_profiles import quantizer, two_layers


def test_size_is_elements_times_width_plus_the_constant_weights():
    size_bits = WeightSize().bind(two_layers())
    bits = np.array([[2, 8, 8, 3], [1, 1, 1, 1]])
    # 10*2 + 30*3 + 64 and 10 + 30 + 64: activations do not count.
    assert size_bits(bits).tolist() == [174.0, 104.0]


def test_a_model_without_searched_weights_has_its_constant_ones():
    profile = ModelProfile(quantizers=(quantizer("a", "activation", 5),), constant_weight_bits=80.0)
    assert WeightSize().bind(profile)(np.array([[4]])).tolist() == [80.0]


def test_megabytes_are_those_of_the_papers_tables():
    # ResNet18 has 11.69 million weights; the paper's float size is 46.8 MB.
    assert round(WeightSize.megabytes(11_689_512 * 32), 1) == 46.8
