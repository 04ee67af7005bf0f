from __future__ import annotations

import itertools
import pickle

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.constraints import Budget, BudgetUse, Constraints, paper_budgets
from gfb_brevitas.constraints.groups import WidthGroups
from gfb_brevitas.constraints.repair import give_back
from gfb_brevitas.costs import (
    ActivationMemory,
    BitOperations,
    CallableCost,
    LatencyTable,
    MeanActivationBits,
    MeanWeightBits,
    WeightSize,
)
from gfb_brevitas.errors import AllocationError, ConfigurationError, InfeasibleBudgetError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.rules import Fix, Range, Tie
from gfb_brevitas.space import SearchSpace
from tests.core.costs.small_profiles import product, profiles, quantizer, random_bits, two_layers

# Columns of two_layers(): conv.weight (10), conv.act (100), skip.act (60), fc.weight (30); 64 bits constant.
BITS = np.array([[2, 4, 8, 3], [1, 1, 1, 1], [8, 8, 8, 8]])


def space(*rules):
    return SearchSpace(two_layers(), rules)


def fast_at(*widths):
    """A cost that is not monotone: 1 per quantizer at one of these widths, 10 at others."""
    return CallableCost(
        name="hardware",
        unit="us",
        function=lambda bits, profile: np.where(np.isin(bits, widths), 1.0, 10.0).sum(axis=1),
        vectorized=True,
    )


class TestBudget:
    def test_a_limit_may_be_a_share_of_a_uniform_allocation(self):
        budgets = [
            Budget(cost=WeightSize(), beta=0.5, uniform_bits=2),
            Budget(cost=BitOperations(), uniform_bits=(2, 4)),
        ]
        # 40 * 2 + 64; 1000 * 32 * 2 + 200 * 4 * 2.
        assert Constraints(space(), budgets).limits.tolist() == [0.5 * 144, 65600.0]

    def test_the_reference_respects_fixed_widths(self):
        constraints = Constraints(space(Fix("conv.weight", 8)), [Budget(cost=WeightSize(), uniform_bits=2)])
        assert constraints.limits.tolist() == [10 * 8 + 30 * 2 + 64]

    def test_an_absolute_limit(self):
        assert Constraints(space(), [Budget(cost=WeightSize(), limit=150)]).limits.tolist() == [150.0]

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({}, "either `uniform_bits`.* or `limit`; got neither"),
            ({"beta": 0.9}, "got neither"),
            ({"limit": 3.0, "uniform_bits": 2}, "got both"),
            ({"limit": 3.0, "beta": 0.5}, "absolute limit 3.0"),
            ({"limit": 0.0}, "`limit` of the budget on weight_size .* above zero; got 0.0"),
            ({"limit": float("nan")}, "got nan"),
            ({"uniform_bits": 2, "beta": -0.1}, "`beta` .* got -0.1"),
            ({"uniform_bits": 2, "beta": float("inf")}, "got inf"),
            ({"uniform_bits": 0}, "from 1 to 32.*got 0"),
            ({"uniform_bits": 2.5}, "got 2.5"),
            ({"uniform_bits": (2, 33)}, r"got \(2, 33\)"),
            ({"uniform_bits": (2, 3, 4)}, r"got \(2, 3, 4\)"),
            ({"uniform_bits": 2, "rho": -1.0}, "`rho` .* got -1.0"),
            ({"uniform_bits": 2, "rho": float("nan")}, "got nan"),
        ],
    )
    def test_settings_outside_their_rule_are_refused(self, settings, message):
        with pytest.raises(ConfigurationError, match=message):
            Budget(cost=WeightSize(), **settings)

    @pytest.mark.parametrize("cost", [3, WeightSize, None])
    def test_what_is_no_cost_is_refused(self, cost):
        with pytest.raises(ConfigurationError, match=r"the name of a registered one; got"):
            Budget(cost=cost, limit=1.0)

    def test_a_cost_may_be_given_by_its_name(self):
        assert Budget(cost="weight_size", limit=1.0) == Budget(cost=WeightSize(), limit=1.0)
        with pytest.raises(ConfigurationError, match="no cost 'weight_sise'. Did you mean 'weight_size'?"):
            Budget(cost="weight_sise", limit=1.0)

    @pytest.mark.parametrize("value", [0.0, -2.0, float("inf")])
    def test_a_uniform_cost_that_has_no_share_is_refused(self, value):
        cost = CallableCost(name="mine", unit="mJ", function=lambda a: value)
        with pytest.raises(ConfigurationError, match=f"mine .* 3 bits, .* it is {value:g} mJ"):
            Constraints(space(), [Budget(cost=cost, uniform_bits=3)])


class TestPaperBudgets:
    @pytest.mark.parametrize(
        "preset, betas, rhos",
        [
            ("cifar", (0.9, 0.98), (20.0, 0.5)),
            ("imagenet", (0.9, 0.9), (10.0, 10.0)),
            ("cityscapes", (0.98, 0.98), (0.1, 0.5)),
        ],
    )
    def test_table_1(self, preset, betas, rhos):
        budgets = paper_budgets(2, 4, preset=preset)
        assert [budget.cost for budget in budgets] == [WeightSize(), MeanActivationBits()]
        assert tuple(budget.beta for budget in budgets) == betas
        assert tuple(budget.rho for budget in budgets) == rhos
        np.testing.assert_allclose(Constraints(space(), budgets).limits, [betas[0] * 144, betas[1] * 4])

    def test_activations_have_the_weights_width_by_default(self):
        assert paper_budgets(3) == paper_budgets(3, 3)

    def test_a_model_without_activations_needs_a_budget_on_weights_alone(self):
        weights_only = SearchSpace(ModelProfile(quantizers=(quantizer("w", "weight", 10),)))
        with pytest.raises(ConfigurationError, match=r"Budget\(cost=WeightSize\(\), \.\.\.\)"):
            Constraints(weights_only, paper_budgets(2))

    def test_an_unknown_preset_is_refused(self):
        with pytest.raises(ConfigurationError, match="cifar, imagenet, cityscapes; got 'mnist'"):
            paper_budgets(2, preset="mnist")


class TestPopulations:
    budgets = (
        Budget(cost=WeightSize(), limit=120, rho=20.0),
        Budget(cost=MeanActivationBits(weighting="quantizers"), limit=4, rho=0.5),
    )

    def test_costs_violations_penalty_and_feasibility_by_hand(self):
        constraints = Constraints(space(), self.budgets)
        assert constraints.names == ("weight_size", "mean_activation_bits")
        assert constraints.costs(BITS).tolist() == [[174.0, 6.0], [104.0, 1.0], [384.0, 8.0]]
        violations = [[174 / 120 - 1, 0.5], [0.0, 0.0], [384 / 120 - 1, 1.0]]
        np.testing.assert_allclose(constraints.violations(BITS), violations)
        np.testing.assert_allclose(constraints.penalty(BITS), [20 * 0.45 + 0.25, 0.0, 20 * 2.2 + 0.5])
        assert constraints.feasible(BITS).tolist() == [False, True, False]

    def test_the_squared_penalty(self):
        constraints = Constraints(space(), self.budgets, penalty="squared")
        np.testing.assert_allclose(constraints.penalty(BITS), [20 * 0.45**2 + 0.125, 0, 20 * 2.2**2 + 0.5])

    def test_one_budget_over_makes_a_candidate_infeasible(self):
        bits = np.array([[1, 4, 4, 1], [1, 5, 4, 1], [2, 4, 4, 2]])
        assert Constraints(space(), self.budgets).feasible(bits).tolist() == [True, False, False]

    def test_rounding_of_the_limit_does_not_decide(self):
        # A share of a reference may come out a rounding error below the cost it stands for.
        for limit in (3.0 * (1 - 1e-15), 3.0, 3.0 * (1 + 1e-15)):
            constraints = Constraints(space(), [Budget(cost=MeanActivationBits(), limit=limit)])
            assert constraints.feasible([[1, 3, 3, 1]]).all()
            assert constraints.violations([[1, 3, 3, 1]]).tolist() == [[0.0]]
            assert not constraints.feasible([[1, 3, 4, 1]]).any()

    @given(profile=profiles(), seed=st.integers(0, 99), bits=st.integers(1, 8))
    def test_feasible_exactly_where_nothing_is_violated(self, profile, seed, bits):
        constraints = Constraints(SearchSpace(profile), paper_budgets(bits))
        population = random_bits(profile, 6, seed)
        nothing = (constraints.violations(population) == 0).all(axis=1)
        np.testing.assert_array_equal(constraints.feasible(population), nothing)
        np.testing.assert_array_equal(constraints.penalty(population) == 0, nothing)

    def test_without_budgets_everything_is_feasible(self):
        constraints = Constraints(space())
        assert constraints.costs(BITS).shape == (3, 0)
        assert constraints.limits.shape == (0,)
        assert constraints.penalty(BITS).tolist() == [0.0, 0.0, 0.0]
        assert constraints.feasible(BITS).all()
        assert constraints.report(BITS[0]) == []
        assert constraints.repair(BITS[0]).tolist() == BITS[0].tolist()
        constraints.check_reachable()

    @pytest.mark.parametrize("bits", [[2, 4, 8, 3], [[2, 4, 8]], [[[1, 1, 1, 1]]]])
    def test_matrices_of_another_shape_are_refused(self, bits):
        with pytest.raises(AllocationError, match=r"shape \(P, 4\); got"):
            Constraints(space(), self.budgets).costs(bits)

    @pytest.mark.parametrize("value", [np.zeros(9), np.full(3, np.nan), 1.0])
    def test_a_cost_that_returns_no_number_per_candidate_is_refused(self, value):
        class Strange:
            name, unit, monotone = "strange", "", True

            def bind(self, profile):
                return lambda bits: value

        constraints = Constraints(space(), [Budget(cost=Strange(), limit=1.0)])
        with pytest.raises(ConfigurationError, match=r"'strange' must return .* \(3,\)"):
            constraints.costs(BITS)

    def test_two_budgets_of_one_name_are_refused(self):
        budgets = [Budget(cost=WeightSize(), limit=100), Budget(cost=WeightSize(), limit=50)]
        with pytest.raises(ConfigurationError, match="'weight_size'; give one of the costs another"):
            Constraints(space(), budgets)
        Constraints(space(), [budgets[0], Budget(cost=WeightSize(name="size"), limit=50)])

    def test_an_unknown_penalty_is_refused(self):
        with pytest.raises(ConfigurationError, match="got 'cubed'"):
            Constraints(space(), penalty="cubed")

    def test_pickled_constraints_say_the_same(self):
        constraints = Constraints(space(), self.budgets, penalty="squared")
        again = pickle.loads(pickle.dumps(constraints))
        np.testing.assert_array_equal(again.penalty(BITS), constraints.penalty(BITS))
        np.testing.assert_array_equal(again.limits, constraints.limits)

    def test_limits_cannot_be_changed_from_outside(self):
        constraints = Constraints(space(), self.budgets)
        constraints.limits[0] = 1e9
        assert constraints.limits.tolist() == [120.0, 4.0]

    def test_a_table_needs_the_pairs_of_the_space_only(self):
        layers = {"conv": {(2, 32): 1.0}, "fc": {(2, 4): 3.0, (3, 4): 5.0}}
        table = LatencyTable(name="latency", unit="us", layers=layers)
        rules = [Fix("conv.weight", 2), Range("fc.weight", 2, 3), Fix("*.act", 4)]
        constraints = Constraints(space(*rules), [Budget(cost=table, limit=5.0)])
        assert constraints.costs([[2, 4, 4, 2], [2, 4, 4, 3]]).tolist() == [[4.0], [6.0]]

    def test_standing_is_all_of_it_from_one_computation(self):
        calls = []

        def size(bits, profile):
            calls.append(len(bits))
            return bits[:, 0].astype(float)

        bits = np.array([[1, 1, 1, 1], [3, 1, 1, 1], [8, 2, 2, 2]])
        cost = CallableCost(function=size, name="first", unit="bits", vectorized=True)
        constraints = Constraints(space(), [Budget(cost=cost, limit=3.0, rho=2.0)], penalty="squared")
        calls.clear()
        standing = constraints.standing(bits)
        assert calls == [3]
        np.testing.assert_allclose(standing.excess, [[1 / 3 - 1], [0.0], [8 / 3 - 1]])
        assert standing.penalty.tolist() == constraints.penalty(bits).tolist()
        assert standing.feasible.tolist() == constraints.feasible(bits).tolist() == [True, True, False]


class TestReport:
    def test_one_row_per_budget(self):
        constraints = Constraints(space(), TestPopulations.budgets)
        assert constraints.report(np.array([1, 4, 8, 1])) == [
            BudgetUse(
                name="weight_size", value=104.0, limit=120.0, use=104 / 120, unit="bits", feasible=True
            ),
            BudgetUse(
                name="mean_activation_bits", value=6.0, limit=4.0, use=1.5, unit="bits", feasible=False
            ),
        ]

    @pytest.mark.parametrize("bits", [[1, 1, 1, 1], [2, 4, 8, 3]])
    def test_optuna_reads_the_same_feasibility(self, bits):
        constraints = Constraints(space(), TestPopulations.budgets)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trial = study.ask()
        constraints.set_on(trial, bits)
        study.tell(trial, 1.0)
        stored = study.trials[0].constraints
        costs, limits = constraints.costs([bits])[0], constraints.limits
        assert stored == pytest.approx(dict(zip(constraints.names, costs / limits - 1, strict=True)))
        assert all(value <= 0 for value in stored.values()) == constraints.feasible([bits])[0]

    def test_a_budget_met_up_to_rounding_is_feasible_for_optuna_too(self):
        constraints = Constraints(space(), [Budget(cost=MeanActivationBits(), limit=3.0 * (1 - 1e-15))])
        trial = optuna.create_study().ask()
        constraints.set_on(trial, [1, 3, 3, 1])
        assert trial.study.trials[0].constraints == {"mean_activation_bits": 0.0}


class TestReachability:
    def test_what_the_smallest_widths_meet_is_reachable(self):
        Constraints(space(), [Budget(cost=WeightSize(), limit=104)]).check_reachable()

    def test_the_error_says_the_limit_and_the_smallest_cost_of_every_budget(self):
        rules = [Range("fc.weight", 3, 8)]
        constraints = Constraints(
            space(*rules),
            [
                Budget(cost=WeightSize(), beta=0.5, uniform_bits=3),
                Budget(cost=MeanActivationBits(), limit=4.5),
            ],
        )
        with pytest.raises(InfeasibleBudgetError) as caught:
            constraints.check_reachable()
        first, second = str(caught.value).splitlines()[1:3]
        # Half of 40 * 3 + 64; at least 10 * 1 + 30 * 3 + 64.
        assert "weight_size CANNOT BE MET: must be at most 92 bits (0.5 of the uniform" in first
        assert "smallest reachable: 164 bits, at the smallest width of every quantizer (1 to 3 bits)" in first
        assert "mean_activation_bits: at most 4.5 bits; smallest reachable: 1." in second

    @pytest.mark.parametrize("widths", [(4,), (4, 8), (8,)])
    def test_the_smallest_of_a_cost_that_is_not_monotone_is_searched_for(self, widths):
        Constraints(space(), [Budget(cost=fast_at(*widths), limit=4.0)]).check_reachable()
        with pytest.raises(InfeasibleBudgetError) as caught:
            Constraints(space(), [Budget(cost=fast_at(*widths), limit=3.9)]).check_reachable()
        assert "smallest found: 4 us" in str(caught.value)
        assert f"conv.weight {widths[0]}, conv.act {widths[0]}" in str(caught.value)

    def test_budgets_that_only_fail_together_say_so(self):
        budgets = [Budget(cost=fast_at(6), limit=4.0), Budget(cost=MeanWeightBits(), limit=5.0)]
        with pytest.raises(InfeasibleBudgetError) as caught:
            Constraints(space(), budgets).check_reachable()
        message = str(caught.value)
        assert message.startswith("Each budget can be met alone, but no allocation was found that meets all")
        assert "CANNOT" not in message
        assert "hardware: must be at most 4 us" in message
        assert "smallest reachable: 1 bits" in message

    def test_budgets_that_hold_together_between_the_extremes(self):
        budgets = [Budget(cost=fast_at(4, 6), limit=4.0), Budget(cost=MeanWeightBits(), limit=4.0)]
        constraints = Constraints(space(), budgets)
        constraints.check_reachable()
        assert constraints.feasible([constraints.repair([6, 6, 6, 6])]).all()

    @given(seed=st.integers(0, 200))
    def test_a_tables_smallest_cost_is_that_of_exhaustive_search(self, seed):
        rng = np.random.default_rng(seed)
        profile = ModelProfile(
            quantizers=tuple(quantizer(name, "weight", 5, max_bits=4) for name in "abcd"),
            products=(product("one", 1, ("a",), ("b",)), product("two", 1, ("c",), ("d",))),
        )
        layers = {
            layer: {(w, a): float(rng.uniform(0, 9)) for w in range(1, 5) for a in range(1, 5)}
            for layer in ("one", "two")
        }
        table = LatencyTable(name="latency", unit="us", layers=layers)
        smallest = sum(min(entries.values()) for entries in layers.values())
        small_space = SearchSpace(profile)
        Constraints(small_space, [Budget(cost=table, limit=smallest)]).check_reachable()
        with pytest.raises(InfeasibleBudgetError, match=f"{smallest:.10g} us"):
            Constraints(small_space, [Budget(cost=table, limit=smallest * 0.999)]).check_reachable()

    def test_an_infinite_cost_is_only_infeasible(self):
        cost = CallableCost(
            name="fits",
            unit="",
            function=lambda a: float("inf") if a["fc.weight"] != 5 else 1.0,
        )
        constraints = Constraints(space(), [Budget(cost=cost, limit=1.0)])
        constraints.check_reachable()
        assert constraints.repair([8, 8, 8, 8]).tolist() == [8, 8, 8, 5]
        assert constraints.repair([8, 8, 8, 3]).tolist() == [8, 8, 8, 5]


@st.composite
def constrained(draw):
    """Reachable monotone budgets on a random model, and a row of its search space."""
    small_space = SearchSpace(draw(profiles()))
    costs = [WeightSize(), MeanActivationBits(), BitOperations(), ActivationMemory(total="largest")]
    chosen = draw(st.lists(st.sampled_from(costs), min_size=1, unique=True))
    uniform_bits = st.integers(1, 8)
    budgets = [Budget(cost=cost, uniform_bits=draw(uniform_bits)) for cost in chosen]
    vector = draw(st.lists(st.floats(0, 3), min_size=len(small_space), max_size=len(small_space)))
    return Constraints(small_space, budgets), small_space.decode(np.array(vector))


class TestRepair:
    @given(constrained())
    def test_is_feasible_in_the_space_and_never_raises_a_width(self, case):
        constraints, bits = case
        constraints.check_reachable()
        before = bits.copy()
        repaired = constraints.repair(bits)
        assert constraints.feasible([repaired]).all()
        assert (repaired <= bits).all()
        constraints.space.check(constraints.space.allocation(repaired))
        np.testing.assert_array_equal(bits, before)

    @given(constrained())
    def test_leaves_no_width_lower_than_needed(self, case):
        constraints, bits = case
        repaired = constraints.repair(bits)
        for coordinate in constraints.space.coordinates:
            raised = repaired.copy()
            columns = [constraints.space.profile.column(name) for name in coordinate.quantizers]
            raised[columns] += 1
            assert raised[columns[0]] > bits[columns[0]] or not constraints.feasible([raised]).any()

    @given(constrained())
    def test_a_feasible_allocation_stays(self, case):
        constraints, bits = case
        if constraints.feasible([bits]).all():
            np.testing.assert_array_equal(constraints.repair(bits), bits)

    def test_the_step_is_the_one_that_buys_most_per_distance(self):
        # One bit less of fc.weight (30 elements) is enough; of conv.weight (10) it takes three.
        constraints = Constraints(space(), [Budget(cost=WeightSize(), limit=384 - 30)])
        assert constraints.repair([8, 8, 8, 8]).tolist() == [8, 8, 8, 7]

    def test_a_budget_on_the_largest_of_two_equals_lowers_both_and_nothing_else(self):
        profile = ModelProfile(
            quantizers=(
                quantizer("a", "activation", 50),
                quantizer("w", "weight", 9),
                quantizer("b", "activation", 50),
                quantizer("c", "activation", 10),
            )
        )
        budget = Budget(cost=ActivationMemory(total="largest"), limit=50 * 6)
        assert Constraints(SearchSpace(profile), [budget]).repair([8, 8, 8, 8]).tolist() == [6, 8, 6, 8]

    def test_what_is_given_back_is_shared_out_evenly(self):
        groups = WidthGroups(space())
        low, wanted = np.array([1, 1, 1, 1]), np.array([8, 8, 1, 2])
        given = give_back(low, wanted, groups, lambda rows: rows.sum(axis=1) <= 11)
        assert given.tolist() == [4, 4, 1, 2]

    def test_tied_widths_stay_tied(self):
        constraints = Constraints(space(Tie("*.act")), [Budget(cost=MeanActivationBits(), limit=3.5)])
        assert constraints.repair([8, 8, 8, 8]).tolist() == [8, 3, 3, 8]

    def test_plateaus_are_crossed(self):
        # Hardware that knows 4 and 8 bits: 5 to 7 cost what 8 does.
        cost = CallableCost(
            name="cycles",
            unit="",
            function=lambda bits, profile: np.where(bits <= 4, 1.0, 2.0) @ np.array([1.0, 1.0, 1.0, 4.0]),
            vectorized=True,
            monotone=True,
        )
        constraints = Constraints(space(), [Budget(cost=cost, limit=10.0)])
        assert constraints.repair([8, 8, 8, 8]).tolist() == [8, 8, 8, 4]

    def test_with_a_cost_that_is_not_monotone_a_width_may_rise(self):
        constraints = Constraints(space(), [Budget(cost=fast_at(8), limit=4.0)])
        assert constraints.repair([5, 8, 2, 8]).tolist() == [8, 8, 8, 8]
        both = [Budget(cost=fast_at(4), limit=4.0), Budget(cost=MeanWeightBits(), limit=4.0)]
        assert Constraints(space(), both).repair([1, 2, 8, 8]).tolist() == [4, 4, 4, 4]

    @given(seed=st.integers(0, 300))
    def test_is_close_to_the_nearest_feasible_allocation(self, seed):
        rng = np.random.default_rng(seed)
        elements = rng.integers(1, 100, size=4)
        profile = ModelProfile(
            quantizers=tuple(
                quantizer(f"w{i}", "weight", int(n), max_bits=5) for i, n in enumerate(elements)
            ),
            products=(product("one", 7, ("w0",), ("w1",)), product("two", 5, ("w2",), ("w3",))),
        )
        budgets = [Budget(cost=WeightSize(), uniform_bits=3), Budget(cost=BitOperations(), uniform_bits=2)]
        constraints = Constraints(SearchSpace(profile), budgets)
        bits = rng.integers(1, 6, size=4)
        everything = np.array(list(itertools.product(range(1, 6), repeat=4)))
        allowed = everything[constraints.feasible(everything)]
        nearest = np.abs(np.log2(allowed / bits)).sum(axis=1).min()
        distance = np.abs(np.log2(constraints.repair(bits) / bits)).sum()
        # One halving more than the best is the most seen by far.
        assert nearest <= distance + 1e-9 <= nearest + 1.0

    def test_unreachable_budgets_are_reported_as_such(self):
        constraints = Constraints(space(), [Budget(cost=WeightSize(), limit=100)])
        with pytest.raises(InfeasibleBudgetError, match="smallest reachable: 104 bits"):
            constraints.repair([8, 8, 8, 8])

    @pytest.mark.parametrize("bits", [[9, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1]])
    def test_what_is_not_in_the_space_is_refused(self, bits):
        with pytest.raises(AllocationError):
            Constraints(space(), [Budget(cost=WeightSize(), limit=200)]).repair(bits)

    def test_is_the_same_every_time(self):
        make = lambda: Constraints(space(), [Budget(cost=fast_at(3, 5), limit=4.0)])  # noqa: E731
        rows = [make().repair([7, 2, 6, 8]).tolist() for _ in range(3)]
        assert rows[0] == rows[1] == rows[2]


def test_budgets_that_limit_nothing_are_said():
    budgets = [
        Budget(cost=WeightSize(), beta=90, uniform_bits=3),
        Budget(cost=MeanActivationBits(), beta=0.9, uniform_bits=8),
        Budget(cost=fast_at(2), limit=1000.0),
    ]
    (sentence,) = Constraints(space(), budgets).idle()
    assert sentence.startswith("The budget 'weight_size' limits nothing: 16,560 bits are allowed")
    assert sentence.endswith("come to 384.")
    assert Constraints(space(), []).idle() == []
