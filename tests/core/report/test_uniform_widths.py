"""What a model costs at uniform widths, and the least that it can cost."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

import gfb_brevitas as gfb
from gfb_brevitas.costs import LatencyTable
from gfb_brevitas.report import uniform_costs, uniform_costs_table
from tests.core.search.small_problem import FEATURES, network


@pytest.fixture
def space() -> gfb.SearchSpace:
    rules = [gfb.Fix("0.weight_quant", 6)]
    return gfb.make_searchable(network(), torch.zeros(2, FEATURES), rules=rules, bits=(2, 4)).space


def shown(table: object) -> list[list[str]]:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return [line.split() for line in capture.get().splitlines()]


def test_the_smallest_is_that_of_the_space_not_of_a_uniform_width(space: gfb.SearchSpace) -> None:
    layers = {
        "0": {(6, 32): 1.0},
        "4": {(w, a): 7.0 if (w, a) == (2, 3) else 20.0 for w in (2, 3, 4) for a in (2, 3, 4)},
    }
    table = LatencyTable(name="latency", unit="us", layers=layers)
    costs = {cost.name: cost for cost in uniform_costs(space, [gfb.Budget(cost=table, limit=15.0)])}
    assert costs["weight_size"].smallest == costs["weight_size"].at_uniform_bits[2]
    assert costs["weight_size"].is_smallest_possible
    latency = costs["latency"]
    assert latency.smallest == 8.0 < min(latency.at_uniform_bits.values())
    assert not latency.is_smallest_possible
    rows = shown(uniform_costs_table(list(costs.values())))
    assert rows[0][-2:] == ["smallest", "limit"]
    assert rows[-2] == ["latency", "(us)", *["21!"] * 5, "<=", "8", "15"], rows
    assert rows[-1] == ["!", "above", "the", "limit"]
