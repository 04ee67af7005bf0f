from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gfb_brevitas.adapters.searchable import make_searchable
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.rules import Fix, Range, Tie
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import quantizer
from tests.core.odd_names import NamedLayers

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


@pytest.fixture(scope="module")
def odd():
    return make_searchable(NamedLayers(), NamedLayers.example).profile


def test_an_exact_name_is_that_quantizer_whatever_it_holds(odd):
    for name in odd.names:
        for rule in (Fix(name, 3), Range([name], 3, 3), Fix(("nothing", name), 3, kind="weight")):
            widths = SearchSpace(odd, [rule]).largest()
            assert {n for n, bits in widths.items() if bits == 3} == {name}
    one, other, *_ = odd.names
    groups = [c.quantizers for c in SearchSpace(odd, [Tie((one, other))]).coordinates]
    assert (one, other) in groups


def test_an_exact_name_is_no_pattern():
    names = ("a[0]", "a0", "b*", "bcd")
    infos = [replace(WEIGHT, name=name) for name in names]
    assert [info.name for info in infos if Fix("a[0]", 3).matches(info, names)] == ["a[0]"]
    assert [info.name for info in infos if Fix("b*", 3).matches(info, names)] == ["b*"]
    assert [info.name for info in infos if Fix("b*", 3).matches(info)] == ["b*", "bcd"]
    assert [info.name for info in infos if Tie(("a[0]", "bcd")).key(info, names)] == ["a[0]", "bcd"]


def test_patterns_match_names_with_brackets(odd):
    fixed = SearchSpace(odd, [Fix("layers.branch[[]*", 3)]).largest()
    assert {n for n, bits in fixed.items() if bits == 3} == {
        "layers.branch[left].weight_quant",
        "layers.branch[0].weight_quant",
    }
    with pytest.raises(ConfigurationError, match=r"matches no quantizer.*\[\[\] a bracket"):
        SearchSpace(odd, [Fix("layers.branch[left].*", 3)])
