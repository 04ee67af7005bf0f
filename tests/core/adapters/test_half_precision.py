"""Models in half and double precision: searched, trained, calibrated and frozen at every width."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import brevitas.quant as bq
import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb

DTYPES = (torch.bfloat16, torch.float16, torch.float64)
SIGNED, UNSIGNED = bq.Int8ActPerTensorFloat, bq.Uint8ActPerTensorFloat


def network(weight: Any = bq.Int8WeightPerTensorFloat, act: Any = SIGNED) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=act, return_quant_tensor=True),
        qnn.QuantLinear(8, 4, bias=True, weight_quant=weight),
        nn.BatchNorm1d(4),
        qnn.QuantReLU(),
        qnn.QuantLinear(4, 3, bias=False, weight_quant=weight),
        qnn.QuantIdentity(act_quant=act),
    )


def points(dtype: torch.dtype) -> Tensor:
    return torch.randn(32, 8, generator=torch.Generator().manual_seed(2)).to(dtype)


def require_same_at_every_width(model: gfb.SearchableModel, x: Tensor, widths: range) -> None:
    for bits in widths:
        model.set_allocation(model.space.uniform(bits))
        model.train().zero_grad()
        model(x).float().square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients and all(bool(torch.isfinite(g).all()) for g in gradients), bits
        searched, frozen = model.eval()(x), model.freeze().eval()(x)
        assert searched.dtype == frozen.dtype == x.dtype, bits
        assert torch.isfinite(searched).all(), bits
        assert torch.equal(searched, frozen), bits


@pytest.mark.parametrize("act", [SIGNED, UNSIGNED])
@pytest.mark.parametrize("weight", [bq.Int8WeightPerTensorFloat, bq.Int8WeightPerChannelFloat])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_width(dtype: torch.dtype, weight: Any, act: Any) -> None:
    most = 15 if dtype == torch.float16 else 16
    x = points(dtype)
    model = gfb.make_searchable(network(weight, act).to(dtype), x, bits=(1, most), clipping="per_bit")
    model.calibrate([x])
    require_same_at_every_width(model, x, range(1, most + 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_searchable_model_that_is_converted(dtype: torch.dtype) -> None:
    model = gfb.make_searchable(network(), points(torch.float32)).to(dtype)
    model.calibrate([points(dtype)])
    require_same_at_every_width(model, points(dtype), range(1, 9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_by_autocast(dtype: torch.dtype) -> None:
    x = points(torch.float32)
    model = gfb.make_searchable(network(), x)
    for bits in (1, 2, 8):
        model.set_allocation(model.space.uniform(bits))
        with torch.autocast("cpu", dtype):
            out = model(x)
        out.float().square().sum().backward()
        assert torch.isfinite(out).all()
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_layers_of_several_precisions_in_one_model() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = network(), network().to(torch.bfloat16)

        def forward(self, x: Tensor) -> Any:
            return self.first(x).mean() + self.second(x.to(torch.bfloat16)).mean()

    x = points(torch.float32)
    model = gfb.make_searchable(Mixed(), x).eval()
    for bits in (1, 2, 8):
        model.set_allocation(model.space.uniform(bits))
        assert torch.equal(model(x), model.freeze().eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_whole_run(dtype: torch.dtype) -> None:
    x = points(dtype)
    result = gfb.fit(
        gfb.make_searchable(network().to(dtype), x),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]).float(), batch[1]),
        train_batches=[(x, (x.sum(1) > 0).long())] * 2,
        validation_batches=[(x, (x.sum(1) > 0).long())],
        budgets=gfb.paper_budgets(3),
        search=gfb.SearchConfig(rounds=1, steps_per_round=1, epochs_per_round=1, evaluations_per_step=16),
        training=gfb.TrainingConfig(learning_rate=1e-3),
    )
    assert result.model(x).dtype == dtype


def test_widths_that_float16_does_not_hold_are_refused() -> None:
    x = points(torch.float16)
    with pytest.raises(gfb.ConfigurationError, match="up to 15 bits.* got `bits` up to 16.*model.float"):
        gfb.make_searchable(network().half(), x, bits=(1, 16))
