"""Small Brevitas models, one per trait that an export has to get right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import brevitas.nn as qnn
import torch
from brevitas.inject.defaults import TruncTo8bit
from brevitas.inject.enum import FloatToIntImplType, ScalingImplType
from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.scaled_int import (
    Int8AccumulatorAwareWeightQuant,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int32Bias,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst
from torch import Tensor, nn

IMAGE = (3, 8, 8)


class BipolarWeights(SignedBinaryWeightPerTensorConst):
    scaling_const = 0.25


class TernaryWeights(SignedTernaryWeightPerTensorConst):
    scaling_const = 0.1


class FlooredWeights(Int8WeightPerTensorFloat):
    float_to_int_impl_type = FloatToIntImplType.FLOOR


class WeightsToZero(Int8WeightPerTensorFloat):
    float_to_int_impl_type = FloatToIntImplType.ROUND_TO_ZERO


class ActivationsToZero(Int8ActPerTensorFloat):
    float_to_int_impl_type = FloatToIntImplType.ROUND_TO_ZERO


class DpuActivations(Int8ActPerTensorFloat):
    float_to_int_impl_type = FloatToIntImplType.DPU


class DynamicActivations(Int8ActPerTensorFloat):
    proxy_class = DynamicActQuantProxyFromInjector


def quantized(bits: int = 4) -> nn.Module:
    return qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True)


class MixedWidths(nn.Module):
    """Convolutions with BatchNorm, one depthwise, weights and activations of 2 to 8 bits."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.inp = quantized(8)
        self.conv1 = qnn.QuantConv2d(
            3,
            channels,
            3,
            padding=1,
            bias=False,
            weight_bit_width=5,
            weight_quant=Int8WeightPerChannelFloat,
        )
        self.bn1 = nn.BatchNorm2d(channels, momentum=None)
        self.relu1 = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.depthwise = nn.Sequential(
            qnn.QuantConv2d(channels, channels, 3, padding=1, groups=channels, weight_bit_width=3),
            nn.BatchNorm2d(channels, momentum=None),
            nn.ReLU(inplace=True),
            quantized(6),
        )
        self.conv2 = qnn.QuantConv2d(channels, 12, 3, bias=False, weight_bit_width=2)
        self.bn2 = nn.BatchNorm2d(12, momentum=None)
        self.relu2 = qnn.QuantReLU(bit_width=2, return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.fc = qnn.QuantLinear(12 * 9, 10, bias=True, weight_bit_width=8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.relu1(self.bn1(self.conv1(self.inp(x)))))
        x = self.pool(self.relu2(self.bn2(self.conv2(x))))
        return self.fc(torch.flatten(x, 1))


class Residual(nn.Module):
    """Branches that meet in an addition, through one quantizer or through two with two scales."""

    def __init__(self, shared: bool = True) -> None:
        super().__init__()
        self.inp = quantized()
        self.left = qnn.QuantConv2d(3, 3, 3, padding=1, weight_bit_width=3, bias=False)
        self.right = qnn.QuantConv2d(3, 3, 3, padding=1, weight_bit_width=4, bias=False)
        self.joint = quantized()
        self.other = self.joint if shared else quantized()
        self.relu = qnn.QuantReLU(bit_width=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.joint(self.left(self.inp(x)))
        return self.relu(x + self.other(self.right(x)))


class CalledThrice(nn.Module):
    """One layer and one quantizer that are called three times each."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = qnn.QuantReLU(bit_width=3, return_quant_tensor=True)
        self.fc = qnn.QuantLinear(6, 6, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.fc(self.relu(x))
        return x


class Concatenation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = quantized()
        self.conv = qnn.QuantConv2d(3, 3, 1, weight_bit_width=4)
        self.last = qnn.QuantConv2d(6, 2, 3, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        return self.last(torch.cat([x, self.quant(self.conv(x))], 1))


class TwoInputs(nn.Module):
    """Two inputs, and outputs in a dictionary, one of them a quantized tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = quantized()
        self.left = qnn.QuantLinear(6, 3, weight_bit_width=4)
        self.right = qnn.QuantLinear(6, 2, weight_bit_width=3)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, object]:
        x, y = self.quant(x), self.quant(y)
        return {"left": self.left(x), "rest": (self.right(y), x)}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = qnn.QuantEmbedding(20, 6, weight_bit_width=4)
        self.fc = qnn.QuantLinear(6, 3, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embedding(x).mean(1))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = qnn.QuantMultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.layer = layer(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


@dataclass(frozen=True)
class Case:
    """A model to build and a source of its inputs."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    words: int = 0

    def samples(self, count: int) -> tuple[Tensor, ...]:
        if self.words:
            return tuple(torch.randint(0, self.words, (count, *shape)) for shape in self.shapes)
        return tuple(torch.randn(count, *shape) for shape in self.shapes)

    def trained(self) -> nn.Module:
        """The model after a few batches: BatchNorm statistics and activation scales are set."""
        model = self.build().train()
        for _ in range(3):
            model(*self.samples(16))
        return model


def chain(*layers: Callable[[], nn.Module], shape: tuple[int, ...] = IMAGE) -> Case:
    return Case(lambda: nn.Sequential(*(build() for build in layers)), (shape,))


def _conv(**options: object) -> Callable[[], nn.Module]:
    return lambda: qnn.QuantConv2d(3, 4, 3, **{"weight_bit_width": 4, **options})


def _act(quantizer: type, **options: object) -> Callable[[], nn.Module]:
    return lambda: qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=True, **options)


EXPORTABLE: dict[str, Case] = {
    "mixed widths": Case(MixedWidths, (IMAGE,)),
    "residual": Case(Residual, (IMAGE,)),
    "called thrice": Case(CalledThrice, ((6,),)),
    "concatenation": Case(Concatenation, (IMAGE,)),
    "two inputs": Case(TwoInputs, ((6,), (6,))),
    "embedding": Case(Words, ((7,),), words=20),
    "attention": Case(SelfAttention, ((5, 8),)),
    "linear": chain(
        quantized,
        lambda: qnn.QuantLinear(6, 8, weight_bit_width=4),
        lambda: qnn.QuantReLU(bit_width=2, return_quant_tensor=True),
        lambda: qnn.QuantLinear(8, 8, weight_bit_width=2, weight_quant=Int8WeightPerChannelFloat),
        shape=(6,),
    ),
    "square linear on sequences": chain(
        quantized, lambda: qnn.QuantLinear(6, 6, weight_bit_width=4, bias=False), shape=(5, 6)
    ),
    "no input quantizer": chain(_conv(), lambda: qnn.QuantReLU(bit_width=4)),
    "conv1d": chain(quantized, lambda: qnn.QuantConv1d(3, 4, 3, weight_bit_width=3), shape=(3, 9)),
    "conv transpose": chain(
        quantized,
        lambda: qnn.QuantConvTranspose2d(
            3, 4, 3, stride=2, weight_bit_width=4, weight_quant=Int8WeightPerChannelFloat
        ),
    ),
    "bipolar weights": chain(quantized, _conv(weight_quant=BipolarWeights)),
    "bipolar activations": chain(_act(SignedBinaryActPerTensorConst), _conv(weight_quant=BipolarWeights)),
    "unsigned 1 bit": chain(
        quantized,
        _conv(),
        lambda: qnn.QuantReLU(bit_width=1, return_quant_tensor=True),
        lambda: qnn.QuantConv2d(4, 4, 3, weight_bit_width=2),
    ),
    "ternary weights": chain(quantized, _conv(weight_quant=TernaryWeights)),
    "signed activations": chain(
        quantized,
        _conv(),
        lambda: qnn.QuantTanh(bit_width=3),
        lambda: qnn.QuantHardTanh(min_val=-0.5, max_val=0.5, bit_width=2),
    ),
    "fixed point": chain(
        _act(Int8ActPerTensorFixedPoint, bit_width=4),
        _conv(weight_quant=Int8WeightPerTensorFixedPoint, bias=False),
        lambda: qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=3),
    ),
    "bias": chain(quantized, _conv(bias_quant=Int32Bias)),
    "pool to 4 bits": chain(
        lambda: qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        lambda: qnn.TruncAvgPool2d(4, bit_width=4, trunc_quant=TruncTo8bit, float_to_int_impl_type="FLOOR"),
    ),
    "pool, signed, rounded": chain(quantized, lambda: qnn.TruncAvgPool2d(2, bit_width=3)),
    "floored weights": chain(quantized, _conv(weight_quant=FlooredWeights)),
    "weights to zero": chain(quantized, _conv(weight_quant=WeightsToZero)),
    "activations to zero": chain(_act(ActivationsToZero, bit_width=3), _conv()),
    "accumulator aware": chain(
        lambda: qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        _conv(weight_quant=Int8AccumulatorAwareWeightQuant, weight_accumulator_bit_width=10),
    ),
    "16 bits": chain(lambda: quantized(16), _conv(weight_bit_width=16), lambda: qnn.QuantReLU(bit_width=16)),
}


def _constant(base: type, scale: float, steps: int, bits: int) -> type:
    """A quantizer whose scale is a constant; ``steps`` is how many of them its threshold is."""
    return type(
        "Constant",
        (base,),
        {
            "scaling_impl_type": ScalingImplType.CONST,
            "scaling_stats_op": None,
            "scaling_init": scale * steps,
            "bit_width": bits,
        },
    )


def full_of_ties() -> nn.Module:
    """Every odd sum of the first convolution lies halfway between two values of its quantizer.

    0.3 * 0.1 is half of 0.06, and none of them is a binary fraction: which way a tie is rounded depends on
    the order of the summation.
    """
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=_constant(Int8ActPerTensorFloat, 0.1, 8, 4), return_quant_tensor=True),
        qnn.QuantConv2d(3, 8, 3, weight_quant=_constant(Int8WeightPerTensorFloat, 0.3, 7, 4), bias=False),
        qnn.QuantReLU(act_quant=_constant(Uint8ActPerTensorFloat, 0.06, 255, 8), return_quant_tensor=True),
        qnn.QuantConv2d(8, 4, 6, weight_bit_width=4, bias=False),
    ).eval()
