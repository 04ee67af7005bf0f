"""Fixed widths that a search is compared with, found from costs alone."""

from __future__ import annotations

from itertools import product

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import nn

from gfb_brevitas import Budget, Constraints, Fix, Range, SearchableModel, Tie, make_searchable, paper_budgets
from gfb_brevitas.constraints import by_hand, widest_uniform
from gfb_brevitas.costs import BitOperations, MeanActivationBits, WeightSize
from gfb_brevitas.rules import Rule


def searchable(*rules: Rule, bits: tuple[int, int] = (1, 8)) -> SearchableModel:
    """Three layers, all activations quantized."""
    torch.manual_seed(0)
    module = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(6, 12, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(12, 12, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantLinear(12, 3, bias=False),
    )
    return make_searchable(module, torch.zeros(2, 6), bits=bits, rules=rules)


def constraints(*budgets: Budget, model: SearchableModel | None = None) -> Constraints:
    return Constraints((model or searchable()).space, budgets)


BUDGETS = {
    "bit operations": [Budget(cost=BitOperations(), beta=0.5, uniform_bits=4)],
    "weights": [Budget(cost=WeightSize(), uniform_bits=3)],
    "activations": [Budget(cost=MeanActivationBits(), limit=3.5)],
    "the paper's": list(paper_budgets(3)),
}


@pytest.mark.parametrize("budgets", BUDGETS.values(), ids=BUDGETS)
def test_no_wider_uniform_widths_keep_the_budgets(budgets: list[Budget]) -> None:
    limits = constraints(*budgets)
    found = widest_uniform(limits)
    assert found is not None and limits.feasible(limits.space.bits(found.allocation)[None])[0]
    weight, activation = found.allocation["1.weight_quant"], found.allocation["2.act_quant"]
    assert found.allocation == limits.space.uniform(weight, activation)
    kept = [
        pair
        for pair in product(range(1, 9), range(1, 9))
        if limits.feasible(limits.space.bits(limits.space.uniform(*pair))[None])[0]
    ]
    assert (min(weight, activation), weight + activation) == max((min(p), sum(p)) for p in kept)


def test_the_names_say_the_widths() -> None:
    found = [widest_uniform(constraints(*budgets)) for budgets in BUDGETS.values()]
    assert [item and item.name for item in found] == [
        "uniform 2 and 4",
        "uniform 3 and 8",
        "uniform 8 and 3",
        "uniform 2",
    ]
    assert found[0] is not None and found[0].folder == "uniform-2-4"


def test_where_nothing_uniform_keeps_the_budgets_there_is_none() -> None:
    tight = constraints(Budget(cost=WeightSize(), limit=300), model=searchable(Fix("5.*", 8)))
    assert widest_uniform(tight) is None and by_hand(tight) is None


def test_rules_keep_what_they_fix() -> None:
    model = searchable(
        Fix("0.*", 6), Range("3.*", 2, 4, kind="weight"), Tie(("1.weight_quant", "5.weight_quant"))
    )
    limits = constraints(Budget(cost=WeightSize(), uniform_bits=6), model=model)
    for found in (widest_uniform(limits), by_hand(limits)):
        assert found is not None
        model.space.check(found.allocation)
        assert found.allocation["0.act_quant"] == 6
        assert limits.feasible(model.space.bits(found.allocation)[None])[0]


def test_by_hand_leaves_the_ends_at_8_bits_and_fills_the_budget_between() -> None:
    limits = constraints(Budget(cost=WeightSize(), limit=8 * (6 * 12 + 12 * 3) + 3 * 144))
    found = by_hand(limits)
    assert found is not None and found.name == "by hand (8, 3 and 8, 8)"
    assert dict(found.allocation) == {
        "0.act_quant": 8,
        "1.weight_quant": 8,
        "2.act_quant": 8,
        "3.weight_quant": 3,
        "4.act_quant": 8,
        "5.weight_quant": 8,
    }


def test_what_is_tied_to_an_end_has_its_width_too() -> None:
    model = searchable(Tie(("1.weight_quant", "3.weight_quant")))
    found = by_hand(constraints(Budget(cost=BitOperations(), uniform_bits=7), model=model))
    assert found is not None
    assert found.allocation["3.weight_quant"] == found.allocation["1.weight_quant"] == 8


def test_a_space_of_weights_alone_has_one_uniform_width() -> None:
    model = searchable(Fix("*", 8, kind="activation"), bits=(2, 8))
    found = widest_uniform(constraints(Budget(cost=BitOperations(), beta=0.5, uniform_bits=8), model=model))
    assert found is not None and found.name == "uniform 4"


def test_a_cost_that_does_not_grow_with_every_width_is_looked_at_for_every_pair() -> None:
    class Dips:
        """Only even widths are cheap."""

        name, unit, monotone = "dips", "things", False

        def bind(self, profile: object) -> object:
            return lambda bits: np.where(bits.max(axis=1) % 2 == 0, 1.0, 9.0)

    limits = constraints(Budget(cost=Dips(), limit=2), model=searchable(bits=(2, 7)))  # type: ignore[arg-type]
    found = widest_uniform(limits)
    assert found is not None and found.name == "uniform 6"
