from __future__ import annotations

import pickle

import pytest

from gfb_brevitas.errors import AllocationError
from gfb_brevitas.profile import FLOAT_BITS, ModelProfile, Operand
from tests.core.costs.small_profiles import two_layers


def test_columns_follow_the_order_of_the_quantizers():
    profile = two_layers()
    assert len(profile) == 4
    assert profile.names == ("conv.weight", "conv.act", "skip.act", "fc.weight")
    assert [profile.column(name) for name in profile.names] == [0, 1, 2, 3]
    assert [info.name for info in profile] == list(profile.names)
    assert profile.columns("weight").tolist() == [0, 3]
    assert profile.columns("activation").tolist() == [1, 2]
    assert profile.elements().tolist() == [10.0, 100.0, 60.0, 30.0]


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(AllocationError, match="'conv'. It has: conv.weight, conv.act"):
        two_layers().column("conv")


def test_an_empty_profile_has_empty_columns():
    profile = ModelProfile(quantizers=())
    assert len(profile) == 0
    assert profile.columns("weight").shape == (0,)
    assert profile.columns("weight").dtype.kind == "i"


def test_profiles_compare_hash_and_pickle_by_value():
    profile = two_layers()
    assert profile == two_layers()
    assert hash(profile) == hash(two_layers())
    again = pickle.loads(pickle.dumps(profile))
    assert again == profile
    assert again.column("fc.weight") == 3


def test_an_operand_is_float_unless_told():
    assert Operand().constant_bits == FLOAT_BITS == 32
