from __future__ import annotations

import pickle

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import AllocationError, ConfigurationError
from gfb_brevitas.profile import ModelProfile, QuantizerInfo
from gfb_brevitas.rules import Fix, Range, Tie
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import profiles, quantizer, two_layers

NAMES = ("conv.weight", "conv.act", "skip.act", "fc.weight")


def space(*rules):
    return SearchSpace(two_layers(), rules)


def allocation(*widths):
    return BitAllocation(dict(zip(NAMES, widths, strict=True)))


class TestCoordinates:
    def test_one_per_quantizer_without_ties(self):
        assert [c.quantizers for c in space().coordinates] == [(name,) for name in NAMES]
        assert len(space()) == 4
        np.testing.assert_allclose(space().lower, 0.0)
        np.testing.assert_allclose(space().upper, 3.0)

    def test_the_models_ties_are_one_coordinate(self):
        profile = ModelProfile(
            quantizers=(
                quantizer("a", "activation", 1, min_bits=2),
                quantizer("w", "weight", 1),
                quantizer("b", "activation", 1, tie_group="a", max_bits=6),
            )
        )
        first, second = SearchSpace(profile).coordinates
        assert (first.name, first.quantizers, first.min_bits, first.max_bits) == ("a", ("a", "b"), 2, 6)
        assert second.quantizers == ("w",)

    def test_later_ranges_win(self):
        widths = [(c.min_bits, c.max_bits) for c in space(Range("*", 2, 4), Range("fc.*", 3, 12)).coordinates]
        assert widths == [(2, 4), (2, 4), (2, 4), (3, 12)]

    def test_fixed_coordinates_are_not_searched(self):
        fixed = space(Fix("conv.weight", 8))
        assert [c.name for c in fixed.free] == list(NAMES[1:])
        assert fixed.coordinates[0].is_fixed
        assert fixed.decode(np.zeros((2, 3))).tolist() == [[8, 1, 1, 1]] * 2

    def test_fixing_one_of_a_tie_fixes_all(self):
        fixed = space(Tie("*.act"), Fix("skip.act", 5))
        assert fixed.decode(np.zeros(2)).tolist() == [1, 5, 5, 1]

    def test_a_tie_joins_whole_groups(self):
        tied = space(Tie("*.act"), Tie(("skip.act", "fc.weight")))
        assert [c.quantizers for c in tied.coordinates] == [
            ("conv.weight",),
            ("conv.act", "skip.act", "fc.weight"),
        ]

    def test_a_tie_by_function_makes_a_coordinate_per_key(self):
        tied = space(Tie(by=lambda info: info.kind))
        assert [c.quantizers for c in tied.coordinates] == [
            ("conv.weight", "fc.weight"),
            ("conv.act", "skip.act"),
        ]

    @pytest.mark.parametrize(
        "rule", [Fix("fc", 4), Range("nothing*", 1, 2), Tie("x"), Tie(by=lambda info: None)]
    )
    def test_a_rule_that_matches_nothing_is_refused(self, rule):
        with pytest.raises(ConfigurationError, match=r"matches no quantizer\. There are: conv\.weight"):
            space(rule)

    def test_ties_without_a_common_width_are_refused(self):
        with pytest.raises(ConfigurationError, match="conv.act 1 to 3, skip.act 4 to 8"):
            space(Tie("*.act"), Range("conv.act", 1, 3), Range("skip.act", 4, 8))

    def test_native_scales_keep_their_smallest_width(self):
        profile = ModelProfile(quantizers=(quantizer("w", "weight", 1, scaling="native", min_bits=2),))
        with pytest.raises(ConfigurationError, match="no fewer than 2 bits.*asks for 1"):
            SearchSpace(profile, [Range("w", 1, 4)])
        assert SearchSpace(profile, [Range("w", 3, 4)]).coordinates[0].min_bits == 3


class TestVectors:
    def test_widths_are_rounded_powers_of_two(self):
        vectors = np.log2([[1.4, 1.6, 7.6, 2.51], [3.0, 5.0, 6.0, 7.0]])
        assert space().decode(vectors).tolist() == [[1, 2, 8, 3], [3, 5, 6, 7]]

    @pytest.mark.parametrize("far, expected", [(-50.0, 1), (50.0, 8), (5000.0, 8), (np.inf, 8), (-np.inf, 1)])
    def test_vectors_outside_the_bounds_are_clipped(self, far, expected):
        assert space().decode(np.full((1, 4), far)).tolist() == [[expected] * 4]

    def test_nan_is_refused(self):
        with pytest.raises(AllocationError, match="NaN"):
            space().decode([0.0, np.nan, 1.0, 1.0])

    @pytest.mark.parametrize("shape", [(3,), (2, 5), (0,)])
    def test_vectors_of_another_space_are_refused(self, shape):
        with pytest.raises(AllocationError, match=f"has 4 entries; got {shape[-1]}"):
            space().decode(np.zeros(shape))

    @given(profiles(), st.data())
    def test_decoding_what_was_encoded_gives_it_back(self, profile, data):
        any_space = SearchSpace(profile, [Range("*", 1, 32)])
        widths = [data.draw(st.integers(1, 32)) for _ in any_space.coordinates]
        by_name = {
            name: w for c, w in zip(any_space.coordinates, widths, strict=True) for name in c.quantizers
        }
        decoded = any_space.decode(any_space.encode(by_name))
        assert any_space.allocation(decoded) == BitAllocation(by_name)
        assert any_space.bits(by_name).tolist() == decoded.tolist()

    def test_encoding_clips_to_the_bounds(self):
        encoded = space(Range("*", 2, 4)).encode(allocation(1, 2, 3, 8))
        np.testing.assert_allclose(encoded, np.log2([2, 2, 3, 4]))

    def test_an_incomplete_allocation_is_refused(self):
        for method in (space().encode, space().bits):
            with pytest.raises(AllocationError, match="it lacks skip.act, fc.weight"):
                method({"conv.weight": 1, "conv.act": 2})

    def test_rows_of_another_length_are_refused(self):
        with pytest.raises(AllocationError, match=r"shape \(4,\); got \(3,\)"):
            space().allocation([1, 2, 3])

    def test_a_space_with_nothing_free_decodes_to_its_one_point(self):
        fixed = space(Fix("*", 3))
        assert fixed.decode(np.empty((2, 0))).tolist() == [[3] * 4] * 2
        assert fixed.lower.shape == (0,)


class TestAllocations:
    def test_uniform_takes_the_nearest_width_there_is(self):
        narrow = space(Range("*.act", 3, 5), Fix("conv.weight", 8))
        assert narrow.uniform(2) == allocation(8, 3, 3, 2)
        assert narrow.uniform(4, 6) == allocation(8, 5, 5, 4)

    @pytest.mark.parametrize("bits", [0, 2.5, 33, 99, True, "4", None, (4, 4)])
    def test_uniform_takes_widths_only(self, bits):
        with pytest.raises(ConfigurationError, match=r"whole number from 1 to 32; got "):
            space().uniform(bits)
        if bits is not None:
            with pytest.raises(ConfigurationError, match="activation_bits.*whole number from 1 to 32; got "):
                space().uniform(4, bits)

    def test_uniform_takes_numpy_widths(self):
        assert space().uniform(np.int64(3)) == allocation(3, 3, 3, 3)

    def test_smallest_and_largest(self):
        narrow = space(Range("*.act", 3, 5))
        assert narrow.smallest() == allocation(1, 3, 3, 1)
        assert narrow.largest() == allocation(8, 5, 5, 8)

    def test_check_accepts_what_is_in_the_space(self):
        assert space().check(dict(allocation(1, 2, 3, 4))) == allocation(1, 2, 3, 4)

    @pytest.mark.parametrize(
        "widths, message",
        [
            ((1, 2, 3, 4), "tied and need one bit width: conv.act 2, skip.act 3"),
            ((1, 2, 2, 5), "'fc.weight' must be from 2 to 4; got 5"),
            ((1, 2, 2, 1), "'fc.weight' must be from 2 to 4; got 1"),
        ],
    )
    def test_check_says_what_is_wrong(self, widths, message):
        with pytest.raises(AllocationError, match=message):
            space(Tie("*.act"), Range("fc.weight", 2, 4)).check(allocation(*widths))

    def test_check_wants_every_name(self):
        with pytest.raises(AllocationError, match="it lacks fc.weight; the model has no other"):
            space().check({"conv.weight": 1, "conv.act": 1, "skip.act": 1, "other": 1})


class TestOptuna:
    def test_suggesting_asks_for_the_free_coordinates(self):
        tied = space(Tie("*.act"), Fix("fc.weight", 8))
        vector = dict(zip(["conv.weight", "conv.act"], np.log2([3.2, 5.0]), strict=True))
        trial = optuna.trial.FixedTrial(vector)
        assert tied.suggest(trial) == allocation(3, 5, 5, 8)
        assert trial.distributions == tied.distributions()

    def test_a_study_stays_in_the_space(self):
        narrow = space(Range("*", 2, 3), Tie("*.act"))

        def objective(trial):
            return sum(narrow.check(narrow.suggest(trial)).values())

        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=20)
        assert study.best_value < 12
        assert set(study.best_params) == {"conv.weight", "conv.act", "fc.weight"}


def test_a_space_survives_pickling():
    original = space(Tie("*.act"), Range("fc.*", 2, 3))
    again = pickle.loads(pickle.dumps(original))
    assert again.coordinates == original.coordinates
    assert again.uniform(8) == original.uniform(8)


class TestRulesThatAreNone:
    @pytest.mark.parametrize("rules", [Fix("*", 4), "0.*", 3, None])
    def test_rules_must_be_a_list(self, rules):
        with pytest.raises(ConfigurationError, match="`rules` must be a list or tuple of Range, Fix and Tie"):
            SearchSpace(two_layers(), rules)

    @pytest.mark.parametrize("rules", [["0.*"], [Fix("*", 4), None], [Fix]])
    def test_every_rule_must_be_one(self, rules):
        with pytest.raises(ConfigurationError, match=r"`rules` .* Fix and Tie.*got "):
            SearchSpace(two_layers(), rules)

    def test_keys_of_ties_must_be_hashable(self):
        with pytest.raises(ConfigurationError, match=r"hashable.*got \['conv'.* for 'conv.weight'"):
            space(Tie(by=lambda info: info.name.split(".")))

    @pytest.mark.parametrize("method", ["check", "encode", "bits"])
    @pytest.mark.parametrize("allocation", [None, 4, [4, 4, 4, 4]])
    def test_allocations_must_be_mappings(self, method, allocation):
        with pytest.raises(AllocationError, match="maps quantizer names to bit widths; got"):
            getattr(space(), method)(allocation)


class TestUnreachedQuantizers:
    PROFILE = ModelProfile(
        quantizers=(
            quantizer("a", "activation", 10),
            quantizer("dead", "activation", 0, min_bits=8, max_bits=8, reached=False),
        )
    )

    def test_ranges_leave_them_as_they_are(self):
        made = SearchSpace(self.PROFILE, [Range("*", 2, 4)])
        assert [c.name for c in made.free] == ["a"]
        assert dict(made.largest()) == {"a": 4, "dead": 8}

    @pytest.mark.parametrize("names", ["dead", "*"])
    def test_a_fixed_width_holds_for_them(self, names):
        made = SearchSpace(self.PROFILE, [Fix(names, 5), Range("a", 1, 4)])
        assert dict(made.smallest()) == {"a": 1, "dead": 5}

    @pytest.mark.parametrize("rule", [Range("dead", 2, 4), Tie("dead")])
    def test_a_rule_for_them_alone_is_refused(self, rule):
        with pytest.raises(
            ConfigurationError, match="matches only quantizers that the example .* never reached"
        ):
            SearchSpace(self.PROFILE, [rule])

    def test_ties_leave_them_out(self):
        made = SearchSpace(self.PROFILE, [Tie("*"), Range("*", 2, 4)])
        assert dict(made.largest()) == {"a": 4, "dead": 8}

    def test_a_scale_that_they_share_does_not_bind_the_others(self):
        shared = ModelProfile(
            quantizers=(
                quantizer("a", "activation", 10),
                quantizer("dead", "activation", 0, min_bits=8, max_bits=8, reached=False, tie_group="a"),
            )
        )
        assert dict(SearchSpace(shared, [Range("*", 2, 4)]).largest()) == {"a": 4, "dead": 4}
        assert dict(SearchSpace(shared, [Fix("dead", 3)]).largest()) == {"a": 3, "dead": 3}


def test_a_space_shows_ranges_fixed_widths_and_ties():
    profile = ModelProfile(
        quantizers=tuple(
            QuantizerInfo(
                name=name,
                kind="weight",
                elements=1,
                largest_call_elements=1,
                macs=1,
                signed=True,
                narrow_range=True,
                granularity="tensor",
                min_bits=1,
                max_bits=8,
                initial_bits=8,
                tie_group=name,
            )
            for name in ("a", "b", "c")
        )
    )
    shown = repr(SearchSpace(profile, [Fix("a", 8), Tie(("b", "c"))]))
    assert "1 free coordinates" in shown
    assert "a: 8 bits" in shown
    assert "b: 1 to 8 bits, with c" in shown
