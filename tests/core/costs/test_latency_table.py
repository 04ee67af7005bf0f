from __future__ import annotations

import json

import numpy as np
import pytest

from gfb_brevitas.costs import LatencyTable, searched_profile
from gfb_brevitas.errors import AllocationError, ConfigurationError
from gfb_brevitas.files import unsealed
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.rules import Fix, Range, Tie
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import product, quantizer, two_layers

WIDTHS = range(1, 9)
CONV = {(w, 32): 100.0 * w for w in WIDTHS}
FC = {(w, a): 10.0 * w + a for w in WIDTHS for a in WIDTHS}


def make(**changes):
    return LatencyTable(**({"name": "latency", "unit": "us", "layers": {"conv": CONV, "fc": FC}} | changes))


def document(**changes):
    return {
        "format": "gfb_brevitas.cost_table",
        "version": 1,
        "name": "latency",
        "unit": "us",
        "layers": {"conv": {"4,8": 12.5}},
        "constant": 0.5,
    } | changes


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


class TestLookUp:
    def test_entries_are_summed_with_the_constant(self):
        cost = make(constant=0.25).bind(two_layers())
        bits = np.array([[2, 4, 8, 3], [8, 1, 1, 1]])
        # conv reads a float input; fc reads the widest of two activations.
        assert cost(bits).tolist() == [200.0 + 38.0 + 0.25, 800.0 + 11.0 + 0.25]

    def test_a_layer_with_several_products_has_one_entry_at_its_widest_operands(self):
        profile = ModelProfile(
            quantizers=tuple(quantizer(name, "activation", 4, max_bits=3) for name in "qkv"),
            products=(product("attention", 10, ("q",), ("k",)), product("attention", 10, 2.5, ("v",))),
        )
        layers = {"attention": {(w, a): 10.0 * w + a for w in WIDTHS for a in WIDTHS}}
        cost = make(layers=layers).bind(profile)
        # Right: widest of k and v. Left: widest of q and the constant, rounded up to 3.
        assert cost(np.array([[1, 2, 1], [2, 1, 3]])).tolist() == [23.0, 33.0]

    def test_a_layer_without_entries_costs_nothing_of_its_own(self):
        cost = make(layers={"conv": {}, "fc": FC}).bind(two_layers())
        assert cost(np.array([[7, 2, 1, 3]])).tolist() == [32.0]
        assert make(layers={"conv": {}, "fc": {}}, constant=4).bind(two_layers())(
            np.ones((2, 4), dtype=np.int64)
        ).tolist() == [4.0, 4.0]

    def test_widths_outside_the_ranges_are_refused_by_layer_and_pair(self):
        cost = make().bind(two_layers())
        with pytest.raises(AllocationError, match="'fc' at 9,4"):
            cost(np.array([[1, 1, 1, 1], [1, 4, 1, 9]]))


class TestMonotone:
    @pytest.mark.parametrize(
        "entries, expected",
        [
            ({(1, 1): 1.0, (2, 1): 1.0, (2, 2): 1.5}, True),
            ({(1, 1): 1.0, (2, 2): 0.5}, False),
            # Neither pair is below the other in both widths.
            ({(1, 3): 2.0, (2, 2): 1.0}, True),
            ({(3, 4): 5.0, (4, 4): 3.0}, False),
            ({}, True),
        ],
    )
    def test_is_read_off_the_entries(self, entries, expected):
        assert make(layers={"other": FC, "fc": entries}).monotone is expected


class TestBinding:
    def test_pairs_that_the_search_reaches_must_be_there(self):
        lacking = {pair: cost for pair, cost in FC.items() if pair not in [(3, 4), (3, 5)]}
        with pytest.raises(ConfigurationError, match=r"fc at 3,4 and 3,5\. Add them"):
            make(layers={"conv": CONV, "fc": lacking}).bind(two_layers())
        few = {pair: cost for pair, cost in FC.items() if pair[0] == 1}
        with pytest.raises(ConfigurationError, match="fc at 2,1 and 2,2 and 2,3 and 53 more"):
            make(layers={"conv": CONV, "fc": few}).bind(two_layers())

    def test_rules_narrow_what_must_be_there(self):
        table = make(layers={"conv": {(8, 32): 1.0}, "fc": {(w, a): 1.0 for w in (2, 3) for a in (4, 5)}})
        rules = [
            Fix("conv.weight", 8),
            Range("fc.weight", 2, 3),
            Range("*.act", 1, 4),
            Range("skip.act", 4, 5),
        ]
        cost = table.bind(searched_profile(SearchSpace(two_layers(), rules)))
        assert cost(np.array([[8, 1, 5, 3]])).tolist() == [2.0]

    def test_ties_narrow_what_must_be_there(self):
        profile = ModelProfile(
            quantizers=(quantizer("w", "weight", 4), quantizer("a", "activation", 4)),
            products=(product("fc", 10, ("a",), ("w",)),),
        )
        diagonal = make(layers={"fc": {(b, b): float(b) for b in WIDTHS}})
        tied = searched_profile(SearchSpace(profile, [Tie("*")]))
        assert diagonal.bind(tied)(np.array([[3, 3]])).tolist() == [3.0]
        with pytest.raises(ConfigurationError, match="fc at 1,2"):
            diagonal.bind(profile)

    def test_tied_quantizers_reach_only_their_common_range(self):
        profile = ModelProfile(
            quantizers=(
                quantizer("a", "activation", 4, max_bits=2),
                quantizer("b", "activation", 4, min_bits=2, tie_group="a"),
            ),
            products=(product("fc", 10, ("a", "b"), 8),),
        )
        make(layers={"fc": {(8, 2): 1.0}}).bind(profile)

    def test_a_tie_with_one_side_of_a_concatenation(self):
        # left = widest(a, b), right = a: the right side is never the wider one.
        profile = ModelProfile(
            quantizers=tuple(quantizer(name, "activation", 4, max_bits=3) for name in "ab"),
            products=(product("fc", 10, ("a", "b"), ("a",)),),
        )
        layers = {"fc": {(r, left): 1.0 for r in (1, 2, 3) for left in range(r, 4)}}
        make(layers=layers).bind(profile)
        del layers["fc"][2, 3]
        with pytest.raises(ConfigurationError, match="fc at 2,3"):
            make(layers=layers).bind(profile)

    def test_unknown_layers_are_refused(self):
        with pytest.raises(ConfigurationError, match="lacks: fc2. The model has: conv, fc"):
            make(layers={"conv": CONV, "fc": FC, "fc2": FC}).bind(two_layers())

    def test_absent_layers_are_refused_with_the_way_out(self):
        with pytest.raises(ConfigurationError, match=r"lacks these layers.*fc.*\{\}"):
            make(layers={"conv": CONV}).bind(two_layers())


class TestFile:
    def test_what_is_saved_is_loaded(self, tmp_path):
        table = make(constant=1.5)
        table.save(tmp_path / "tables" / "latency.json")
        loaded = LatencyTable.load(tmp_path / "tables" / "latency.json")
        assert loaded == table
        bits = np.array([[2, 4, 8, 3]])
        assert loaded.bind(two_layers())(bits) == table.bind(two_layers())(bits)

    def test_the_format_is_the_documented_one(self, tmp_path):
        table = LatencyTable.load(write(tmp_path / "t.json", document()))
        assert (table.name, table.unit, table.constant) == ("latency", "us", 0.5)
        assert table.layers == {"conv": {(4, 8): 12.5}}
        table.save(tmp_path / "again.json")
        again = json.loads((tmp_path / "again.json").read_text())
        assert unsealed(again) == document()
        again["layers"]["conv"]["4,8"] = 13.5
        with pytest.raises(ConfigurationError, match=r"t\.json: .* is damaged: .*checksum differs"):
            LatencyTable.load(write(tmp_path / "t.json", again))

    def test_the_constant_may_be_left_out(self, tmp_path):
        content = document()
        del content["constant"]
        assert LatencyTable.load(write(tmp_path / "t.json", content)).constant == 0.0

    def test_a_template_lists_what_must_be_filled_in_and_nothing_else(self, tmp_path):
        rules = [Range("*.weight", 2, 3), Range("*.act", 4, 4)]
        profile = searched_profile(SearchSpace(two_layers(), rules))
        path = tmp_path / "t.json"
        LatencyTable.write_template(path, profile, name="energy", unit="uJ")
        content = json.loads(path.read_text())
        assert content["layers"] == {"conv": {"2,32": None, "3,32": None}, "fc": {"2,4": None, "3,4": None}}
        with pytest.raises(ConfigurationError, match="'conv' at '2,32' is null; fill in"):
            LatencyTable.load(path)
        for entries in content["layers"].values():
            entries.update(dict.fromkeys(entries, 2.0))
        filled = LatencyTable.load(write(path, content))
        assert (filled.name, filled.unit) == ("energy", "uJ")
        assert filled.bind(profile)(np.array([[2, 4, 4, 3]])).tolist() == [4.0]

    @pytest.mark.parametrize(
        "content, message",
        [
            ("{", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("[]", '"format": "gfb_brevitas.cost_table"'),
            (document(format="gfb_brevitas.allocation"), '"format": "gfb_brevitas.cost_table"'),
            (document(version=2), "version 1; got 2"),
            (document(name=""), "name must be a non-empty string"),
            (document(unit=3), "unit must be a non-empty string; got 3"),
            (document(constants=1), "got constants too"),
            (document(layers=[]), r'"layers" must map'),
            (document(layers={"conv": 3.0}), "'conv' must map width pairs"),
            (document(layers={"conv": {"4": 1.0}}), "got '4' for 'conv'"),
            (document(layers={"conv": {"4,x": 1.0}}), "got '4,x'"),
            (document(layers={"conv": {"-4,8": 1.0}}), "got '-4,8'"),
            (document(layers={"conv": {"0,8": 1.0}}), r"got \(0, 8\)"),
            (document(layers={"conv": {"4,33": 1.0}}), r"got \(4, 33\)"),
            (document(layers={"conv": {"4,8": 1.0, "4, 8": 2.0}}), "two entries for 4,8"),
            (document(layers={"conv": {"4,8": -1.0}}), r"at least zero; got -1.0 for conv at \(4, 8\)"),
            (document(layers={"conv": {"4,8": float("nan")}}), "got nan"),
            (document(layers={"conv": {"4,8": float("inf")}}), "got inf"),
            (document(layers={"conv": {"4,8": 10**400}}), "at least zero"),
            (document(layers={"conv": {"4,8": "12"}}), "got '12'"),
            (document(layers={"conv": {"4,8": True}}), "got True"),
            (document(constant=-0.1), "got -0.1 for the constant"),
            (document(constant=None), "got None for the constant"),
            ('{"format": "gfb_brevitas.cost_table", "version": 1, "version": 1}', "repeated key 'version'"),
        ],
    )
    def test_bad_files_are_refused_by_path_and_reason(self, tmp_path, content, message):
        path = write(tmp_path / "bad.json", content)
        with pytest.raises(ConfigurationError, match=message) as caught:
            LatencyTable.load(path)
        assert str(path) in str(caught.value)

    def test_a_file_that_is_not_there_or_not_text(self, tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            LatencyTable.load(tmp_path / "none.json")
        (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            LatencyTable.load(tmp_path / "binary.json")

    def test_the_table_keeps_its_own_copy_of_the_entries(self):
        layers = {"conv": dict(CONV), "fc": dict(FC)}
        table = make(layers=layers)
        layers["conv"].clear()
        assert table.layers["conv"] == CONV
