from __future__ import annotations

from collections import Counter
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.prepared.program import KEPT_PER_CONSTANT, Program
from tests.core.prepared.preparing import prepared, searchable_model


class CountingRuns:
    """Counts what a program really computes."""

    def __init__(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dynamic = self.constant = 0
        run = program._run

        def counted(step: Any) -> Any:
            self.dynamic += step.dynamic
            self.constant += not step.dynamic
            return run(step)

        monkeypatch.setattr(program, "_run", counted)

    def since(self) -> tuple[int, int]:
        counts = self.dynamic, self.constant
        self.dynamic = self.constant = 0
        return counts


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(x: Tensor) -> SearchableModel:
    layers = [qnn.QuantIdentity(return_quant_tensor=True)]
    for _ in range(3):
        layers += [qnn.QuantLinear(6, 6, bias=True), qnn.QuantReLU(return_quant_tensor=True)]
    return searchable_model(nn.Sequential(*layers, qnn.QuantLinear(6, 2, bias=True)), x)


@pytest.fixture
def program(model: SearchableModel, x: Tensor) -> Program:
    return prepared(model, x, integers=False)[1].program


def names(model: SearchableModel) -> list[str]:
    return list(model.profile.names)


def test_nothing_runs_again_for_equal_widths_and_inputs(
    model: SearchableModel, program: Program, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = CountingRuns(program, monkeypatch)
    first = program([x], inputs_id=1)
    everything = counting.since()
    second = program([x], inputs_id=1)
    assert torch.equal(first[0], second[0])
    assert 0 < counting.since()[0] < everything[0]
    program([x], inputs_id=2)
    assert counting.since() == (everything[0], 0)
    program([x])
    assert counting.since() == (everything[0], 0)


def test_a_change_in_the_last_layer_leaves_the_first_ones_alone(
    model: SearchableModel, program: Program, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.set_bits([4] * len(model.profile))
    program([x], inputs_id=1)
    counting = CountingRuns(program, monkeypatch)
    costs = []
    for name in ("7.weight_quant", "3.weight_quant", "0.act_quant"):
        bits = [3 if n == name else 4 for n in names(model)]
        model.set_bits(bits)
        (result,) = program([x], inputs_id=1)
        with torch.no_grad():
            assert torch.allclose(result, model(x), atol=1e-6)
        costs.append(counting.since()[0])
        model.set_bits([4] * len(model.profile))
        program([x], inputs_id=1)
        counting.since()
    assert costs == sorted(costs) and len(set(costs)) == 3


def test_weights_are_quantized_once_per_width(
    model: SearchableModel, program: Program, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = CountingRuns(program, monkeypatch)
    for bits in (3, 5, 3, 5, 3):
        model.set_bits([bits] * len(model.profile))
        program([x])
    constants = Counter({"first": counting.since()[1]})
    for bits in (3, 5):
        model.set_bits([bits] * len(model.profile))
        program([x])
    constants["again"] = counting.since()[1]
    assert constants["first"] > 0 and constants["again"] == 0


def test_constants_that_depend_on_many_widths_do_not_pile_up(
    model: SearchableModel, program: Program, x: Tensor
) -> None:
    for step in range(200):
        model.set_bits([1 + (step * (i + 1)) % 8 for i in range(len(model.profile))])
        (result,) = program([x])
    assert max(map(len, program._constants.values())) <= KEPT_PER_CONSTANT
    with torch.no_grad():
        assert torch.allclose(result, model(x), atol=1e-6)


def test_changed_weights_are_seen_after_forgetting(
    model: SearchableModel, program: Program, x: Tensor
) -> None:
    program([x])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
        program.forget()
        assert torch.allclose(program([x])[0], model(x), atol=1e-6)


def test_values_between_calls_keep_to_the_memory_limit(model: SearchableModel, x: Tensor) -> None:
    captured, _ = prepared(model, x, integers=False)
    unlimited = Program(captured.graph, captured.graph.graph, captured.sites)
    none = Program(captured.graph, captured.graph.graph, captured.sites, memory_bytes=0)
    results = []
    for program in (unlimited, none):
        program([x], inputs_id=1)
        results.append(program([x], inputs_id=1)[0])
        kept = [v for n, v in enumerate(program._values) if n in program._steps and program._steps[n].dynamic]
        assert any(value is not None for value in kept) == (program is unlimited)
    assert torch.equal(*results)
    unlimited.release()
    assert all(unlimited._values[n] is None for n, step in unlimited._steps.items() if step.dynamic)


def test_quantizers_are_listed_in_the_order_of_the_computation(
    model: SearchableModel, program: Program
) -> None:
    columns = {id(site.width): number for number, site in enumerate(model._sites)}
    met = [names(model)[columns[id(program._sites[site].holder)]] for site in program.order_of_sites]
    assert met.index("0.act_quant") < met.index("2.act_quant") < met.index("4.act_quant")
    assert met[-1] == "7.weight_quant"
    assert sorted(met) == sorted(names(model))
