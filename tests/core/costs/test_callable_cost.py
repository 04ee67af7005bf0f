from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.costs import CallableCost
from gfb_brevitas.errors import ConfigurationError
from tests.core.costs.small_profiles import two_layers

BITS = np.array([[2, 4, 8, 6], [1, 2, 3, 4]])


def test_the_function_gets_each_allocation_by_name():
    seen = []

    def function(allocation):
        seen.append(allocation)
        return allocation["conv.weight"] + 10 * allocation["fc.weight"]

    cost = CallableCost(name="mine", unit="points", function=function)
    assert cost.bind(two_layers())(BITS).tolist() == [62.0, 41.0]
    assert all(type(allocation) is BitAllocation for allocation in seen)


def test_the_vectorized_function_gets_the_matrix_and_the_profile():
    def function(bits, profile):
        return bits[:, profile.column("skip.act")]

    cost = CallableCost(name="mine", unit="bits", function=function, vectorized=True)
    assert cost.bind(two_layers())(BITS).tolist() == [8.0, 3.0]


def test_a_callable_is_not_monotone_unless_it_says_so():
    assert not CallableCost(name="mine", unit="", function=len).monotone
    assert CallableCost(name="mine", unit="", function=len, monotone=True).monotone


@pytest.mark.parametrize("value", [float("nan"), None, "many", [1, 2]])
def test_what_is_no_number_is_refused_with_the_allocation(value):
    cost = CallableCost(name="mine", unit="", function=lambda allocation: value)
    with pytest.raises(ConfigurationError, match=r"'mine' must return a number.*conv\.weight"):
        cost.bind(two_layers())(BITS)


@pytest.mark.parametrize(
    "value, received",
    [(np.zeros(3), r"\(3,\)"), (1.0, r"\(\)"), (["a", "b"], "U1"), (np.array([1j, 2]), "complex")],
)
def test_what_is_no_vector_of_numbers_is_refused(value, received):
    cost = CallableCost(name="mine", unit="", function=lambda bits, profile: value, vectorized=True)
    with pytest.raises(ConfigurationError, match=rf"shape \(2,\); got .*{received}"):
        cost.bind(two_layers())(BITS)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(ConfigurationError, match="callable; got 3"):
        CallableCost(name="mine", unit="", function=3)
