from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.rules import Fix, Range, Tie
from tests.core.costs.small_profiles import quantizer

WEIGHT = quantizer("layer1.conv.weight_quant", "weight", 1)
ACT = quantizer("layer1.conv.act_quant", "activation", 1)


@pytest.mark.parametrize(
    "names, expected",
    [
        ("layer1.*", (True, True)),
        ("*.weight_quant", (True, False)),
        ("layer1.conv.act_quant", (False, True)),
        (("nothing", "*.act_quant"), (False, True)),
        ("Layer1.*", (False, False)),
        ("layer1", (False, False)),
        ("layer[12].*", (True, True)),
        ((), (False, False)),
    ],
)
def test_names_are_matched_whole_by_shell_patterns(names, expected):
    for rule in (Range(names, 1, 4), Fix(names, 4)):
        assert (rule.matches(WEIGHT), rule.matches(ACT)) == expected
    tie = Tie(names)
    assert (tie.key(WEIGHT) is not None, tie.key(ACT) is not None) == expected


def test_a_kind_restricts_a_rule():
    assert Fix("*", 4, kind="weight").matches(WEIGHT)
    assert not Fix("*", 4, kind="weight").matches(ACT)
    assert not Range("*", 1, 4, kind="activation").matches(WEIGHT)


@pytest.mark.parametrize("bounds", [(0, 4), (4, 3), (1, 33), (1.5, 3), (1, 3.0), ("1", 3), (None, 3)])
def test_ranges_must_be_whole_widths_in_order(bounds):
    with pytest.raises(ConfigurationError, match=f"1 <= min <= max <= 32; got {bounds[0]} to {bounds[1]}"):
        Range("*", *bounds)


@pytest.mark.parametrize("bits", [0, 33, -1, 2.5, "4", None])
def test_a_fixed_width_must_be_whole_and_in_range(bits):
    with pytest.raises(ConfigurationError, match=f"whole number from 1 to 32 bits; got {bits} for"):
        Fix("*", bits)


def test_widths_may_be_numpy_integers():
    assert Range("*", np.int64(2), np.int64(4)).max_bits == 4
    assert Fix("*", np.int32(3)).bits == 3


def test_a_tie_takes_names_or_a_function():
    tie = Tie(by=lambda info: info.name.split(".")[0] if info.kind == "weight" else None)
    assert tie.key(WEIGHT) == "layer1"
    assert tie.key(ACT) is None
    for settings in ({}, {"names": "*", "by": len}):
        with pytest.raises(ConfigurationError, match="not both or neither"):
            Tie(**settings)


@pytest.mark.parametrize("names", [3, None, ("conv.*", 3), {"conv.*": 4}, b"conv"])
@pytest.mark.parametrize("make", [lambda n: Fix(n, 8), lambda n: Range(n, 2, 4)])
def test_names_must_be_patterns(make, names):
    with pytest.raises(ConfigurationError, match="a shell pattern of quantizer names.*; got"):
        make(names)


def test_the_names_of_a_tie_must_be_patterns():
    with pytest.raises(ConfigurationError, match="a shell pattern of quantizer names.*; got 3"):
        Tie(3)


@pytest.mark.parametrize("make", [lambda k: Fix("*", 8, kind=k), lambda k: Range("*", 2, 4, kind=k)])
@pytest.mark.parametrize("kind", ["weights", "act", 3, ["weight"]])
def test_an_unknown_kind_is_refused(make, kind):
    with pytest.raises(ConfigurationError, match=r"`kind` of .* must be None, 'weight' or 'activation'; got"):
        make(kind)


def test_what_a_tie_goes_by_must_be_a_function():
    with pytest.raises(ConfigurationError, match="`by` of a tie must be a function.*got 3"):
        Tie(by=3)
