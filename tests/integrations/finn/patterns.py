"""Small Brevitas models, each with one thing that FINN builds or does not build, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8Bias,
    Int8WeightPerTensorFloat,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    TruncTo8bit,
)
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from torch import Tensor, nn

SHAPE = (3, 8, 8)


@dataclass(frozen=True)
class Pattern:
    """A model and what FINN does with it.

    Attributes:
        build: Makes the model.
        rule: The rule of the check that it breaks; ``None`` when FINN builds it.
        shape: Shape of one sample.
    """

    build: Callable[[], nn.Module]
    rule: str | None = None
    shape: tuple[int, ...] = SHAPE


def entry(bits: int = 8, **settings: Any) -> nn.Module:
    return qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True, **settings)


def relu(bits: int = 4, **settings: Any) -> nn.Module:
    return qnn.QuantReLU(bit_width=bits, return_quant_tensor=True, **settings)


def conv(inputs: int = 3, outputs: int = 4, bits: int = 4, **settings: Any) -> nn.Module:
    settings = {"kernel_size": 3, "bias": False, "weight_bit_width": bits, **settings}
    return qnn.QuantConv2d(inputs, outputs, **settings)


def head(features: int, **settings: Any) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), qnn.QuantLinear(features, 5, bias=True, weight_bit_width=4, **settings)
    )


def plain(
    first: nn.Module | None = None,
    product: nn.Module | None = None,
    activation: nn.Module | None = None,
    pool: nn.Module | None = None,
    last: nn.Module | None = None,
    norm: bool = True,
) -> nn.Module:
    """Input quantizer, convolution, BatchNorm, activation, pooling, linear layer; any of them replaced."""
    model = nn.Sequential(
        entry() if first is None else first,
        conv() if product is None else product,
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        relu() if activation is None else activation,
        nn.Identity() if pool is None else pool,
    )
    with torch.no_grad():
        features = model(torch.rand(2, *SHAPE))
    features = getattr(features, "value", features)
    model.append(head(features[0].numel()) if last is None else last)
    return model


def normed(norm: nn.Module) -> nn.Module:
    """A convolution that ``norm`` follows."""
    return nn.Sequential(entry(), conv(), norm, relu(), head(144))


def one_dimension() -> nn.Module:
    """A network over sequences."""
    product = qnn.QuantConv1d(2, 4, 3, padding=1, bias=False, weight_bit_width=4)
    return nn.Sequential(entry(), product, nn.BatchNorm1d(4), relu(), nn.MaxPool1d(2), head(32))


class Branches(nn.Module):
    """Two branches that are added."""

    def __init__(
        self, one: nn.Module, other: nn.Module, after: nn.Module, norm: bool = True, features: int = 256
    ) -> None:
        super().__init__()
        self.entry = nn.Sequential(entry(), conv(outputs=4, padding=1), nn.BatchNorm2d(4), relu())
        self.product = nn.Sequential(conv(4, 4, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity())
        self.one, self.other, self.after = one, other, after
        self.head = head(features)

    def forward(self, x: Tensor) -> Any:
        x = self.entry(x)
        return self.head(self.after(self.one(self.product(x)) + self.other(x)))


def shared_branches(bits: int = 4) -> nn.Module:
    shared = entry(bits)
    return Branches(shared, shared, relu())


def trunc_pool(rounding: str, kernel: Any = 2, bits: int = 4, **settings: Any) -> nn.Module:
    return qnn.TruncAvgPool2d(
        kernel,
        trunc_quant=TruncTo8bit,
        bit_width=bits,
        float_to_int_impl_type=rounding,
        return_quant_tensor=True,
        **settings,
    )


def pixels(*last: nn.Module) -> nn.Module:
    """A network on images of 2x2 pixels, and what comes last."""
    return nn.Sequential(entry(), conv(kernel_size=4, stride=4), relu(), *last)


def binary(padding: int) -> nn.Module:
    weights = {"weight_quant": SignedBinaryWeightPerTensorConst, "scaling_init": 1.0}
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, scaling_init=1.0),
        conv(bits=1, padding=padding, **weights),
        nn.BatchNorm2d(4),
        qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, scaling_init=1.0),
        head((8 if padding else 6) ** 2 * 4),
    )


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry, self.gate, self.head = entry(), relu(), head(3 * 64)

    def forward(self, x: Tensor) -> Any:
        x = self.entry(x)
        return self.head(self.gate(x.value * self.gate(x).value))


class Applied(nn.Module):
    """A function of a model and its input."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.model, x)


class Exchange(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.value.transpose(2, 3)


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.value.squeeze(-1).squeeze(-1)


class VectorBranches(nn.Module):
    """Branches of vectors behind one quantizer, and what joins them."""

    def __init__(
        self,
        join: Callable[..., Any],
        features: int = 8,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.entry = nn.Sequential(entry(), linear(20), relu())
        self.one, self.other, self.shared = linear(8), linear(8), shared or entry(4)
        self.join, self.after, self.head = join, relu(), linear(features, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.entry(x)
        branches = [self.shared(branch) for branch in (self.one(x), self.other(x), x)]
        return self.head(self.after(self.join(*branches)))


def linear(inputs: int, outputs: int = 8, **settings: Any) -> nn.Module:
    return qnn.QuantLinear(inputs, outputs, bias=True, weight_bit_width=4, **settings)


def bipolar() -> nn.Module:
    return qnn.QuantIdentity(
        act_quant=SignedBinaryActPerTensorConst, scaling_init=1.0, return_quant_tensor=True
    )


def bipolar_conv(inputs: int = 3, **settings: Any) -> nn.Module:
    return conv(inputs, bits=1, weight_quant=SignedBinaryWeightPerTensorConst, scaling_init=1.0, **settings)


def bipolar_and(*rest: nn.Module) -> nn.Module:
    """A convolution of -1 and 1 with activations of -1 and 1, and what comes behind."""
    return nn.Sequential(bipolar(), bipolar_conv(), nn.BatchNorm2d(4), bipolar(), *rest)


class PerChannelAct(Int8ActPerTensorFloat):
    scaling_per_output_channel = True
    per_channel_broadcastable_shape = (1, 4, 1, 1)
    scaling_stats_permute_dims = (1, 0, 2, 3)


class ShiftedWeight(Int8WeightPerTensorFloat):
    narrow_range = False


BUILDS = {
    "plain": Pattern(plain),
    "mixed widths": Pattern(lambda: plain(first=entry(6), product=conv(bits=3), activation=relu(2))),
    "eight bits": Pattern(lambda: plain(product=conv(bits=8), activation=relu(8))),
    "two bits": Pattern(lambda: plain(first=entry(2), product=conv(bits=2), activation=relu(2))),
    "no BatchNorm": Pattern(lambda: plain(norm=False)),
    "float bias": Pattern(lambda: plain(product=conv(bias=True), norm=False)),
    "per-channel weights": Pattern(lambda: plain(product=conv(weight_scaling_per_output_channel=True))),
    "padding and stride": Pattern(lambda: plain(product=conv(padding=1, stride=2))),
    "one by one": Pattern(lambda: plain(product=conv(kernel_size=1))),
    "one by one with stride": Pattern(lambda: plain(product=conv(kernel_size=1, stride=2))),
    "dilation": Pattern(lambda: plain(product=conv(dilation=2))),
    "rectangle": Pattern(lambda: plain(product=conv(kernel_size=(3, 1), padding=(1, 0)))),
    "depthwise": Pattern(
        lambda: plain(first=nn.Sequential(entry(), conv(), relu()), product=conv(4, 4, groups=4))
    ),
    "maximum pooling": Pattern(lambda: plain(pool=nn.MaxPool2d(2))),
    "overlapping pooling": Pattern(lambda: plain(pool=nn.MaxPool2d(3, stride=2))),
    "truncated average": Pattern(lambda: plain(pool=trunc_pool("FLOOR"))),
    "signed activations": Pattern(lambda: plain(activation=entry(4))),
    "addition last": Pattern(lambda: Branches(*[entry(4)] * 2, nn.Identity())),
    "residual": Pattern(shared_branches),
    "one-bit ReLU": Pattern(lambda: plain(activation=relu(1))),
    "one-bit ReLU and convolution": Pattern(
        lambda: plain(first=nn.Sequential(entry(), conv(), relu(1)), product=conv(4, 4, padding=1))
    ),
    "bipolar weights": Pattern(
        lambda: plain(
            product=conv(bits=1, weight_quant=SignedBinaryWeightPerTensorConst, scaling_init=0.1, padding=1)
        )
    ),
    "padded maximum": Pattern(lambda: plain(pool=nn.MaxPool2d(3, stride=2, padding=1))),
    "hard tanh": Pattern(lambda: plain(activation=qnn.QuantHardTanh(bit_width=4, min_val=-1.0, max_val=1.0))),
    "norm after addition": Pattern(
        lambda: Branches(*[entry(4)] * 2, nn.Sequential(nn.BatchNorm2d(4), relu()))
    ),
    "unsigned input": Pattern(lambda: plain(first=qnn.QuantReLU(bit_width=8, return_quant_tensor=True))),
    "sixteen-bit weights": Pattern(lambda: plain(product=conv(bits=16))),
    "norm last": Pattern(lambda: plain(last=nn.Sequential(*head(144), nn.BatchNorm1d(5)))),
    "convolution last": Pattern(lambda: plain(last=conv(4, 3, 4, kernel_size=1))),
    "quantized bias in the last layer": Pattern(lambda: plain(last=head(144, bias_quant=Int32Bias))),
    "bipolar": Pattern(lambda: binary(0)),
    "multilayer perceptron": Pattern(
        lambda: nn.Sequential(
            entry(),
            qnn.QuantLinear(20, 16, bias=True, weight_bit_width=3),
            nn.BatchNorm1d(16),
            relu(3),
            qnn.QuantLinear(16, 4, bias=True, weight_bit_width=4),
        ),
        shape=(20,),
    ),
    "three summands": Pattern(lambda: VectorBranches(lambda a, b, c: a + b + c), shape=(20,)),
    "quantized bias in a hidden linear layer": Pattern(
        lambda: nn.Sequential(entry(), linear(20, bias_quant=Int32Bias), relu(3), linear(8)), shape=(20,)
    ),
    "input scaled before its quantizer": Pattern(
        lambda: Applied(nn.Sequential(entry(), linear(20)), lambda model, x: model(2.0 * x - 1.0)),
        shape=(20,),
    ),
    "bipolar and maximum pooling": Pattern(lambda: bipolar_and(nn.MaxPool2d(2), head(36))),
    "flattened at the output": Pattern(lambda: pixels(conv(4, 5, kernel_size=2), nn.Flatten())),
    "norm flattened at the output": Pattern(
        lambda: pixels(conv(4, 5, kernel_size=2), nn.BatchNorm2d(5), nn.Flatten())
    ),
    "image flattened at the output": Pattern(lambda: pixels(conv(4, 5, kernel_size=1), nn.Flatten())),
    "quantized and flattened at the output": Pattern(
        lambda: pixels(conv(4, 5, kernel_size=2), relu(), nn.Flatten())
    ),
    "one channel": Pattern(lambda: nn.Sequential(entry(), conv(1, 1), relu(), head(36)), shape=(1, 8, 8)),
    "one channel, one by one": Pattern(
        lambda: nn.Sequential(entry(), conv(1, 1, kernel_size=1), relu(), head(64)), shape=(1, 8, 8)
    ),
    "one row": Pattern(
        lambda: nn.Sequential(entry(), conv(3, 7, kernel_size=(1, 3), padding=(0, 1)), relu(), head(56)),
        shape=(3, 1, 8),
    ),
    "average of nine": Pattern(lambda: plain(pool=trunc_pool("FLOOR", 3, 8))),
    "quantized output": Pattern(
        lambda: nn.Sequential(entry(), qnn.QuantLinear(20, 16, bias=False, weight_bit_width=3), relu(3)),
        shape=(20,),
    ),
}
"""Models that FINN builds."""

FAILS = {
    "no input quantizer": Pattern(lambda: plain(first=nn.Identity()), "input quantizer"),
    "wide activations": Pattern(lambda: plain(activation=relu(9)), "activation width"),
    "wide input": Pattern(lambda: plain(first=entry(10)), "activation width"),
    "per-channel activation scale": Pattern(
        lambda: plain(activation=qnn.QuantIdentity(act_quant=PerChannelAct, bit_width=4)), "activation scale"
    ),
    "zero point": Pattern(
        lambda: plain(activation=qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat)), "zero point"
    ),
    "sigmoid": Pattern(lambda: plain(activation=qnn.QuantSigmoid(bit_width=4)), "activation function"),
    "leaky ReLU": Pattern(lambda: plain(activation=nn.Sequential(nn.LeakyReLU(), entry(4))), "operation"),
    "padded bipolar": Pattern(lambda: binary(1), "bipolar padding"),
    "float activation": Pattern(lambda: plain(activation=nn.ReLU(), pool=conv(4, 4)), "quantized input"),
    "bipolar then four bits": Pattern(
        lambda: plain(
            first=nn.Sequential(qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, scaling_init=1.0)),
            product=conv(
                bits=1, weight_quant=SignedBinaryWeightPerTensorConst, scaling_init=0.1, kernel_size=1
            ),
            activation=relu(4),
        ),
        "bipolar product",
    ),
    "padded maximum of signed values": Pattern(
        lambda: plain(activation=entry(4), pool=nn.MaxPool2d(3, stride=2, padding=1)), "signed padding"
    ),
    "ReLU module and identity": Pattern(lambda: plain(activation=nn.Sequential(nn.ReLU(), entry(4))), "ReLU"),
    "bipolar, pooled, then padded": Pattern(
        lambda: bipolar_and(
            nn.MaxPool2d(2), bipolar_conv(4, padding=1), nn.BatchNorm2d(4), bipolar(), head(36)
        ),
        "bipolar padding",
    ),
    "bipolar average": Pattern(lambda: bipolar_and(trunc_pool("FLOOR"), head(36)), "bipolar average"),
    "bipolar input of wide weights": Pattern(
        lambda: nn.Sequential(bipolar(), linear(20), relu(), linear(8)), "bipolar thresholds", shape=(20,)
    ),
    "concatenation": Pattern(
        lambda: VectorBranches(lambda a, b, _: torch.cat([a, b], 1), features=16),
        "concatenation",
        shape=(20,),
    ),
    "values added to themselves": Pattern(
        lambda: VectorBranches(lambda a, *_: a + a), "same operand", shape=(20,)
    ),
    "average of maxima": Pattern(
        lambda: plain(pool=nn.Sequential(nn.MaxPool2d(2), trunc_pool("FLOOR"))), "average of maxima"
    ),
    "average to more bits than its sum": Pattern(
        lambda: plain(pool=trunc_pool("FLOOR", 2, 8)), "truncated width"
    ),
    "average of nine narrow values": Pattern(
        lambda: plain(activation=relu(3), pool=trunc_pool("FLOOR", 3, 4)), "truncated width"
    ),
    "average over a rectangle": Pattern(lambda: plain(pool=trunc_pool("FLOOR", (2, 3))), "average pooling"),
    "activation rounded down": Pattern(
        lambda: plain(activation=relu(4, float_to_int_impl_type="FLOOR")), "rounding"
    ),
    "input rounded to zero": Pattern(
        lambda: plain(first=entry(4, float_to_int_impl_type="ROUND_TO_ZERO")), "rounding"
    ),
    "bipolar sum": Pattern(
        lambda: VectorBranches(lambda a, b, _: a + b, shared=bipolar()),
        "bipolar sum",
        shape=(20,),
    ),
    "linear layer over a sequence": Pattern(
        lambda: nn.Sequential(entry(), linear(6), relu(), linear(8, 4)), "sequence", shape=(5, 6)
    ),
    "pooling with gaps": Pattern(lambda: plain(pool=nn.MaxPool2d(2, stride=3)), "pooling"),
    "flattened in two steps": Pattern(
        lambda: plain(last=nn.Sequential(nn.Flatten(2), nn.Flatten(), linear(144, 5))), "reshape"
    ),
    "axes exchanged": Pattern(lambda: plain(last=nn.Sequential(Exchange(), *head(144))), "reshape"),
    "squeezed": Pattern(
        lambda: plain(pool=nn.MaxPool2d(6), last=nn.Sequential(Squeeze(), linear(4, 5))), "reshape"
    ),
    "window on one pixel": Pattern(
        lambda: nn.Sequential(entry(), conv(3, 7, padding=1), relu(), head(7)), "convolution", shape=(3, 1, 1)
    ),
    "difference of quantized branches": Pattern(
        lambda: VectorBranches(lambda a, b, _: a - b), "operation", shape=(20,)
    ),
    "image of a flat input": Pattern(
        lambda: Applied(plain(), lambda model, x: model(x.view(-1, 3, 8, 8))), "reshape", shape=(192,)
    ),
    "channels last": Pattern(
        lambda: Applied(plain(), lambda model, x: model(x.permute(0, 3, 1, 2))), "reshape", shape=(8, 8, 3)
    ),
    "mask of every value": Pattern(
        lambda: Applied(
            plain(norm=False), lambda model, x: model[2:](model[:2](x) * torch.linspace(0.5, 2, 6))
        ),
        "constant",
    ),
    "24-bit weights": Pattern(lambda: plain(product=conv(bits=24)), "weight width"),
    "1-bit integer activations": Pattern(lambda: plain(activation=entry(1)), "1-bit integers"),
    "average of a sum": Pattern(
        lambda: Branches(*[entry(4)] * 2, trunc_pool("FLOOR"), features=64), "average of sums"
    ),
    "one value of every map": Pattern(
        lambda: Applied(pixels(conv(4, 5, kernel_size=2)), lambda model, x: model(x)[:, :, 0, 0]), "operation"
    ),
    "ceil pooling": Pattern(lambda: plain(pool=nn.MaxPool2d(3, stride=2, ceil_mode=True)), "pooling"),
    "float weights": Pattern(lambda: plain(product=nn.Conv2d(3, 4, 3)), "quantized weights"),
    "quantized bias": Pattern(
        lambda: plain(product=conv(bias=True, bias_quant=Int32Bias), norm=False), "quantized bias"
    ),
    "eight-bit bias": Pattern(
        lambda: plain(product=conv(bias=True, bias_quant=Int8Bias), norm=False), "quantized bias"
    ),
    **{
        name: Pattern(lambda norm=norm: normed(norm), "statistics")
        for name, norm in {
            "instance norm": nn.InstanceNorm2d(4),
            "instance norm with weights": nn.InstanceNorm2d(4, affine=True),
            "batch norm of the batch": nn.BatchNorm2d(4, track_running_stats=False),
            "group norm": nn.GroupNorm(2, 4),
        }.items()
    },
    "one dimension": Pattern(one_dimension, "one dimension", (2, 16)),
    "groups": Pattern(
        lambda: plain(first=nn.Sequential(entry(), conv(), relu()), product=conv(4, 4, groups=2)),
        "convolution",
    ),
    "transposed": Pattern(
        lambda: plain(product=qnn.QuantConvTranspose2d(3, 4, 3, bias=False, weight_bit_width=4)),
        "convolution",
    ),
    "truncated adaptive average": Pattern(
        lambda: plain(
            pool=qnn.TruncAdaptiveAvgPool2d(
                1, trunc_quant=TruncTo8bit, bit_width=4, float_to_int_impl_type="FLOOR"
            )
        ),
        "average pooling",
    ),
    "dilated pooling": Pattern(lambda: plain(pool=nn.MaxPool2d(2, dilation=2)), "pooling"),
    "rounded average": Pattern(lambda: plain(pool=trunc_pool("ROUND")), "truncation"),
    "average of floats": Pattern(
        lambda: plain(pool=nn.Sequential(nn.AvgPool2d(2), entry(4))), "average pooling"
    ),
    "adaptive average": Pattern(
        lambda: plain(pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), entry(4))), "average pooling"
    ),
    "branches of two quantizers": Pattern(
        lambda: Branches(entry(4), qnn.QuantIdentity(bit_width=4, return_quant_tensor=True), relu()),
        "shared quantizer",
    ),
}
"""Models that FINN does not build, or wrongly, and the rule of the check."""


FLOATS = {
    "float branch": Pattern(lambda: Branches(nn.Identity(), nn.Identity(), relu()), "quantized operands"),
    "product of activations": Pattern(Product, "product"),
    "difference of branches": Pattern(
        lambda: VectorBranches(lambda a, b, _: a.value - b.value), "difference", shape=(20,)
    ),
    "two ReLUs": Pattern(
        lambda: nn.Sequential(entry(), linear(20), nn.ReLU(), relu(), linear(8)), "ReLU", shape=(20,)
    ),
    "ReLU last": Pattern(
        lambda: nn.Sequential(entry(), linear(20), nn.ReLU()), "ReLU at the output", shape=(20,)
    ),
    "softmax last": Pattern(
        lambda: nn.Sequential(entry(), linear(20), nn.Softmax(1)), "operation behind", shape=(20,)
    ),
    "class number last": Pattern(
        lambda: Applied(nn.Sequential(entry(), linear(20)), lambda model, x: model(x).argmax(1)),
        "operation behind",
        shape=(20,),
    ),
}
"""Models that FINN builds of floating-point layers, and the rule of the check."""


def trained(pattern: Pattern, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A pattern's model with random weights and statistics, and eight samples."""
    torch.manual_seed(seed)
    model = pattern.build()
    x = torch.rand(8, *pattern.shape) * 2 - 1
    model.train()
    with torch.no_grad():
        for _ in range(5):
            try:
                model(torch.rand(8, *pattern.shape) * 2 - 1)
            except RuntimeError:  # branches of different scales: Brevitas refuses
                break
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            if pattern.rule is None:
                with torch.no_grad():
                    module.weight[::3] *= -1.0  # as training may have it
    return model.eval(), x
