from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.errors import EmptyDataError
from gfb_brevitas.sensitivity import SensitivityTable, estimate_sensitivity
from tests.core.search.small_problem import loader, loss, network_with_native_scale, searchable


def estimated(model: SearchableModel, function: Any = loss) -> SensitivityTable:
    table = estimate_sensitivity(model, function, list(loader()), "batch")
    assert table is not None
    return table


def calibrated() -> SearchableModel:
    model = searchable()
    model.calibrate(list(loader()))
    return model


def test_fewer_bits_never_cost_less_and_the_most_cost_nothing() -> None:
    model = calibrated()
    table = estimated(model)
    assert table.names == model.profile.names
    assert table.increases.shape == (3, 9)
    assert (np.diff(table.increases[:, 1:], axis=1) <= 0).all()
    assert (table.increases[:, 8] == 0).all() and (table.increases[:, 1] > 0).all()


def test_it_is_the_squared_product_of_gradient_and_change() -> None:
    model = calibrated()
    weight = model.model[4].weight  # type: ignore[index]
    batch = next(iter(loader()))
    table = estimate_sensitivity(model, loss, [batch], "running")
    assert table is not None
    quantizer = model.model[4].weight_quant  # type: ignore[index]
    values = {}
    for bits in (2, 8):
        with model.using({**model.allocation, model.profile.names[2]: bits}):
            values[bits] = quantizer(weight).value.detach()
    model.eval()
    gradient = torch.autograd.grad(loss(model, batch), weight)[0]  # straight through inside the range
    quantized = values[2]
    expected = (gradient * (quantized - values[8])).square().sum().item()
    assert table.increases[2, 2] == pytest.approx(expected, rel=0.2)


def test_totals_add_up() -> None:
    table = SensitivityTable(names=("a", "b"), increases=np.array([[9.0, 3.0, 0.0], [9.0, 5.0, 1.0]]))
    np.testing.assert_array_equal(table.totals(np.array([[1, 1], [2, 1], [2, 2]])), [8.0, 5.0, 1.0])


def test_nothing_of_the_model_changes() -> None:
    model = calibrated().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    allocation = model.allocation
    estimated(model)
    assert model.allocation == allocation and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_without_gradient_gives_no_estimate() -> None:
    def wrong_answers(model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch[0]).argmax(dim=1) != batch[1]).float().mean()

    assert estimate_sensitivity(calibrated(), wrong_answers, list(loader()), "running") is None


def test_a_quantizer_with_a_scale_of_its_own_gets_the_median() -> None:
    model = searchable(network_with_native_scale())
    known = [i for i, site in enumerate(model._sites) if site.learned is not None]
    unknown = [i for i in range(len(model.profile)) if i not in known]
    increases = estimated(model).increases
    assert unknown
    np.testing.assert_array_equal(increases[unknown[0]], np.median(increases[known], axis=0))


def test_no_data_is_an_error() -> None:
    with pytest.raises(EmptyDataError, match="at least 1 minibatch"):
        estimate_sensitivity(calibrated(), loss, [], "running")
