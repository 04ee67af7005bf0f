from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gfb_brevitas.errors import CalibrationError
from gfb_brevitas.quant import IntegerFormat, Samples, fake_quantize, mse_optimal_clipping
from tests.core.quant.brevitas_oracle import FORMATS, format_name

SIGNED = IntegerFormat.plain(signed=True, narrow_range=True)
UNSIGNED = IntegerFormat.plain(signed=False, narrow_range=False)


def error(values: Tensor, clipping: float, bits: int, integers: IntegerFormat) -> float:
    quantized, _ = fake_quantize(values, torch.tensor(clipping), bits, integers)
    return float((quantized - values).square().mean())


def values_of(distribution: str) -> Tensor:
    normal = torch.randn(4000)
    return {
        "normal": normal,
        "relu": normal.relu(),
        "uniform": torch.rand(4000) * 2 - 1,
        "laplace": torch.from_numpy(np.random.default_rng(0).laplace(0, 0.5, 4000)).float(),
        "with_outliers": torch.cat([normal * 0.01, torch.tensor([1.0, -1.0])]),
    }[distribution]


@pytest.mark.parametrize("distribution", ["normal", "relu", "uniform", "laplace", "with_outliers"])
@pytest.mark.parametrize("integers", FORMATS, ids=format_name)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_no_clipping_value_of_a_fine_scan_is_better(distribution, integers, bits):
    values = values_of(distribution)
    if not integers.signed:
        values = values.abs()
    found = mse_optimal_clipping([Samples(values=values[None], integers=integers)], bits)
    assert found.shape == (1,)
    reach = float(values.abs().max())
    scanned = min(error(values, a, bits, integers) for a in np.linspace(0, 1.2, 600)[1:] * reach)
    assert error(values, float(found), bits, integers) <= 1.01 * scanned


def test_channels_are_independent():
    values = torch.randn(3, 500) * torch.tensor([[0.1], [1.0], [30.0]])
    together = mse_optimal_clipping([Samples(values=values, integers=SIGNED)], 4)
    alone = [mse_optimal_clipping([Samples(values=row[None], integers=SIGNED)], 4) for row in values]
    torch.testing.assert_close(together, torch.cat(alone))


def test_scales_with_its_data():
    values = torch.randn(1, 500)
    once = mse_optimal_clipping([Samples(values=values, integers=SIGNED)], 3)
    scaled = mse_optimal_clipping([Samples(values=1024 * values, integers=SIGNED)], 3)
    torch.testing.assert_close(scaled, 1024 * once)


def test_quantizers_that_share_a_scale_add_their_errors():
    wide, narrow = torch.randn(1, 1000) * 4, torch.randn(1, 1000)
    shared = mse_optimal_clipping([Samples(values=v, integers=SIGNED) for v in (wide, narrow)], 4)
    whole = mse_optimal_clipping([Samples(values=torch.cat([wide, narrow], dim=1), integers=SIGNED)], 4)
    torch.testing.assert_close(shared, whole)

    mixed = [Samples(values=narrow, integers=SIGNED), Samples(values=wide.abs(), integers=UNSIGNED)]
    best = float(mse_optimal_clipping(mixed, 4))

    def total(a: float) -> float:
        return error(narrow, a, 4, SIGNED) + error(wide.abs(), a, 4, UNSIGNED)

    assert total(best) <= 1.01 * min(total(a) for a in np.linspace(0.1, 20, 400))


def test_optimal_clipping_of_laplace_samples_is_on_a_line():
    # Fig. 3 of the paper: for Laplace(0, 0.5) the optimum grows linearly with the bit width.
    samples = torch.from_numpy(np.random.default_rng(0).laplace(0, 0.5, (1, 100_000))).float()
    bits = np.arange(2, 9)
    best = np.array(
        [float(mse_optimal_clipping([Samples(values=samples, integers=SIGNED)], b)) for b in bits]
    )
    slope, intercept = np.polyfit(bits, best, 1)
    residual = best - (slope * bits + intercept)
    r_squared = 1 - residual.var() / best.var()
    assert r_squared > 0.99
    assert slope > 0


def test_a_channel_of_zeros_gets_a_harmless_value():
    values = torch.stack([torch.zeros(50), torch.randn(50)])
    found = mse_optimal_clipping([Samples(values=values, integers=SIGNED)], 4)
    assert found[0] == 1 and found[1] > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        mse_optimal_clipping([Samples(values=torch.tensor([[1.0, bad]]), integers=SIGNED)], 4)


def test_no_values_are_refused():
    with pytest.raises(CalibrationError, match="no values"):
        mse_optimal_clipping([Samples(values=torch.empty(1, 0), integers=SIGNED)], 4)
