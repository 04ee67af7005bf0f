from __future__ import annotations

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    ShiftedUint8ActPerTensorFloat,
)
from torch import Tensor, nn

from gfb_brevitas.evaluation.modes import BatchNormStatistics
from gfb_brevitas.prepared.integer_products import IntegerProduct, integer_products_available
from tests.core.adapters.layer_kinds import KINDS, Quantizers
from tests.core.prepared.preparing import (
    images,
    prepared,
    residual_network,
    searchable_model,
    share_that_differs,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Keyword arguments are being passed but they not being used"),
    pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator not supported yet"),
]
needs_integers = pytest.mark.skipif(
    not integer_products_available(), reason="needs a CPU that multiplies bytes (VNNI or AMX)"
)
EITHER = pytest.mark.parametrize("integers", [False, pytest.param(True, marks=needs_integers)])


def random_bits(rows: int, columns: int, low: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(low, 9, size=(rows, columns))


@EITHER
@pytest.mark.parametrize("name", list(KINDS))
def test_every_layer_kind_computes_what_the_model_computes(name: str, integers: bool) -> None:
    kind = KINDS[name]
    inputs = kind.inputs()
    model = searchable_model(kind.build(Quantizers()), inputs)
    _, result = prepared(model, inputs, integers=integers)
    for bits in [*random_bits(6, len(model.profile)), np.full(len(model.profile), 1)]:
        assert share_that_differs(model, result.program, [inputs], bits) <= 0.01


@EITHER
@pytest.mark.parametrize("batchnorm", ["running", "batch"])
def test_a_residual_network_at_any_widths(integers: bool, batchnorm: BatchNormStatistics) -> None:
    inputs = images()
    model = searchable_model(residual_network(), inputs)
    _, result = prepared(model, inputs, integers=integers, batchnorm=batchnorm)
    shares = [
        share_that_differs(model, result.program, [inputs], bits, batchnorm)
        for bits in random_bits(12, len(model.profile))
    ]
    # A value that float noise lifts over a rounding border moves the outputs; that is rare.
    assert np.mean(np.array(shares) <= 0.01) >= 0.75


@needs_integers
def test_convolutions_run_in_integers_and_hand_on_codes() -> None:
    inputs = images()
    model = searchable_model(residual_network(), inputs)
    _, result = prepared(model, inputs, integers=True)
    steps = list(result.program._steps.values())
    products = [step.run for step in steps if isinstance(step.run, IntegerProduct)]
    assert len(products) == 7
    assert all(product.target is not None for product in products)
    assert [reason.split(": ")[1] for reason in result.in_floating_point] == [
        "too small to gain from integers"
    ]


@needs_integers
def test_what_integers_cannot_do_stays_in_floating_point_and_is_named() -> None:
    model = nn.Sequential(
        qnn.QuantConv2d(3, 32, 3, bias=False),  # its input is not quantized
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantConvTranspose2d(32, 32, 3, bias=False),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantConv2d(32, 32, 3, bias=False),
    )
    inputs = images()
    searchable = searchable_model(model, inputs)
    _, result = prepared(searchable, inputs, integers=True)
    assert list(result.in_floating_point) == [
        "0: its input is not quantized with one scale to at most 8 bits",
        "2: it is transposed or has more than two dimensions",
    ]
    products = [s for s in result.program._steps.values() if isinstance(s.run, IntegerProduct)]
    assert len(products) == 1
    assert share_that_differs(searchable, result.program, [inputs], [4] * len(searchable.profile)) <= 0.01


class Padded(nn.Module):
    """A convolution that pads by itself, and a shortcut that fills up channels, as of option A."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = qnn.QuantIdentity()
        self.conv = qnn.QuantConv2d(3, 32, 3, stride=2, bias=False)
        self.last = qnn.QuantConv2d(32, 32, 3, bias=False)
        self.relu = qnn.QuantReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        y = self.relu(self.conv(nn.functional.pad(x, (0, 1, 0, 1))))
        return self.last(nn.functional.pad(y, (1, 1), value=0.0)) + nn.functional.pad(
            x[:, :, :13, :15], (0, 0, 0, 0, 14, 15)
        )


def rows_network() -> nn.Module:
    """One dimension: plain, dilated, depthwise, pointwise, grouped and strided."""

    def block(inputs: int, outputs: int, kernel: int, **settings: int) -> list[nn.Module]:
        conv = qnn.QuantConv1d(inputs, outputs, kernel, bias=False, **settings)
        return [conv, nn.BatchNorm1d(outputs), qnn.QuantReLU(return_quant_tensor=True)]

    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        *block(3, 32, 5, padding=2),
        *block(32, 32, 5, padding=4, dilation=2),
        *block(32, 32, 5, padding=2, groups=32),
        *block(32, 64, 1),
        *block(64, 64, 5, stride=2, padding=2, groups=4),
    )


@needs_integers
@pytest.mark.parametrize("batchnorm", ["running", "batch"])
def test_one_dimension_and_groups_run_in_integers(batchnorm: BatchNormStatistics) -> None:
    inputs = torch.randn(64, 3, 128, generator=torch.Generator().manual_seed(0))
    model = searchable_model(rows_network(), inputs)
    _, result = prepared(model, inputs, integers=True, batchnorm=batchnorm)
    assert result.in_floating_point == ()
    products = [s for s in result.program._steps.values() if isinstance(s.run, IntegerProduct)]
    assert len(products) == 5
    shares = [
        share_that_differs(model, result.program, [inputs], bits, batchnorm)
        for bits in random_bits(6, len(model.profile))
    ]
    assert np.mean(np.array(shares) <= 0.01) >= 0.75


@needs_integers
def test_padding_hands_on_codes() -> None:
    inputs = images(64, size=30)
    model = searchable_model(Padded(), inputs)
    _, result = prepared(model, inputs, integers=True)
    assert result.in_floating_point == ()
    for bits in [*random_bits(6, len(model.profile)), np.full(len(model.profile), 1)]:
        assert share_that_differs(model, result.program, [inputs], bits) <= 0.01


@needs_integers
def test_widths_above_eight_bits_stay_in_floating_point() -> None:
    inputs = images()
    model = searchable_model(residual_network(), inputs, bits=(2, 12))
    from gfb_brevitas.evaluation.modes import inference_only
    from gfb_brevitas.prepared.capture import Call, capture
    from gfb_brevitas.prepared.prepare import prepare

    with inference_only(model):
        captured = capture(model.model, Call.of((inputs,), {}))
    result = prepare(captured, {site.index: 12 for site in captured.sites}, integers=True)
    assert not any(isinstance(step.run, IntegerProduct) for step in result.program._steps.values())
    # The levels lie so close that rounding noise often reaches the next.
    assert share_that_differs(model, result.program, [inputs], [11] * len(model.profile)) <= 0.2


@EITHER
def test_quantizers_with_brevitas_own_scales(integers: bool) -> None:
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat, return_quant_tensor=True),
        qnn.QuantConv2d(3, 16, 3, bias=False, weight_quant=Int8WeightPerTensorFixedPoint),
        nn.BatchNorm2d(16),
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, return_quant_tensor=True),
        qnn.QuantConv2d(16, 16, 3, bias=False),
    )
    inputs = images()
    searchable = searchable_model(model, inputs)
    _, result = prepared(searchable, inputs, integers=integers)
    lowest = [info.min_bits for info in searchable.profile]
    for bits in ([8] * len(lowest), lowest, [5] * len(lowest)):
        assert share_that_differs(searchable, result.program, [inputs], bits) <= 0.01


class Branches(nn.Module):
    """BatchNorm without weights, after a linear layer, and with its input used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = qnn.QuantIdentity(return_quant_tensor=True)
        self.one = qnn.QuantLinear(128, 128, bias=True)
        self.norm1 = nn.BatchNorm1d(128, affine=False)
        self.act = qnn.QuantReLU(return_quant_tensor=True)
        self.two = qnn.QuantLinear(128, 128, bias=False)
        self.norm2 = nn.BatchNorm1d(128)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.two(self.act(self.norm1(self.one(self.quant(x)))))
        return {"normed": self.norm2(hidden), "raw": hidden}


@EITHER
@pytest.mark.parametrize("batchnorm", ["running", "batch"])
def test_batchnorm_wherever_it_stands(integers: bool, batchnorm: BatchNormStatistics) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 128)
    model = searchable_model(Branches(), inputs)
    _, result = prepared(model, inputs, integers=integers, batchnorm=batchnorm)
    for bits in random_bits(5, len(model.profile), low=3):
        assert share_that_differs(model, result.program, [inputs], bits, batchnorm) <= 0.01
