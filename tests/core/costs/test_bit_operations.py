from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.costs import BitOperations
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from tests.core.costs.small_profiles import product, quantizer, two_layers


def test_constants_count_as_given_and_concatenations_at_their_widest():
    bit_operations = BitOperations().bind(two_layers())
    bits = np.array([[2, 4, 8, 3], [2, 8, 4, 3], [1, 1, 1, 1]])
    # conv: 1000 * 32 * weight; fc: 200 * widest(conv.act, skip.act) * weight.
    assert bit_operations(bits).tolist() == [
        1000 * 32 * 2 + 200 * 8 * 3,
        1000 * 32 * 2 + 200 * 8 * 3,
        1000 * 32 * 1 + 200 * 1 * 1,
    ]


def test_a_product_of_two_activations_and_one_of_constants():
    profile = ModelProfile(
        quantizers=(quantizer("q", "activation", 4), quantizer("k", "activation", 4)),
        products=(product("attention", 10, ("q",), ("k",)), product("float", 7, 32, 16)),
    )
    assert BitOperations().bind(profile)(np.array([[3, 5]])).tolist() == [10 * 3 * 5 + 7 * 32 * 16]


def test_a_profile_without_products_is_refused():
    with pytest.raises(ConfigurationError, match="products"):
        BitOperations().bind(ModelProfile(quantizers=(quantizer("a", "activation", 5),)))
