from __future__ import annotations

from gfb_brevitas.costs import searched_profile
from gfb_brevitas.rules import Fix, Range, Tie
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import two_layers


def test_ranges_and_ties_are_those_of_the_space():
    profile = two_layers()
    space = SearchSpace(profile, [Range("*.act", 2, 4), Fix("conv.weight", 8), Tie("*.act")])
    searched = searched_profile(space)
    assert [(q.min_bits, q.max_bits, q.tie_group) for q in searched] == [
        (8, 8, "conv.weight"),
        (2, 4, "conv.act"),
        (2, 4, "conv.act"),
        (1, 8, "fc.weight"),
    ]
    assert searched.products == profile.products
    assert searched.constant_weight_bits == profile.constant_weight_bits
    assert searched.column("fc.weight") == 3


def test_without_rules_nothing_changes():
    profile = two_layers()
    assert searched_profile(SearchSpace(profile)) == profile
