"""Networks of the FINN benchmarks, with random weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant import TruncTo8bit
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from bench_compat import case

Network = tuple[Callable[[], nn.Module], tuple[int, ...]]


def entry(bits: int = 8) -> nn.Module:
    return qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True)


def block(
    inputs: int, outputs: int, weight_bits: int, activation_bits: int, **convolution: Any
) -> list[nn.Module]:
    """Convolution, BatchNorm and activation."""
    settings = {"kernel_size": 3, "padding": 1, "bias": False, "weight_bit_width": weight_bits, **convolution}
    return [
        qnn.QuantConv2d(inputs, outputs, **settings),
        nn.BatchNorm2d(outputs),
        qnn.QuantReLU(bit_width=activation_bits, return_quant_tensor=True),
    ]


def plain() -> nn.Module:
    """Mixed widths, a depthwise and a strided convolution, both poolings."""
    return nn.Sequential(
        entry(),
        *block(1, 8, 4, 4),
        nn.MaxPool2d(2),
        *block(8, 8, 3, 5, groups=8),
        *block(8, 16, 2, 3, kernel_size=1, padding=0),
        *block(16, 16, 5, 4, stride=2),
        qnn.TruncAvgPool2d(7, trunc_quant=TruncTo8bit, bit_width=8, float_to_int_impl_type="FLOOR"),
        nn.Flatten(),
        qnn.QuantLinear(16, 10, bias=True, weight_bit_width=6),
    )


class Residual(nn.Module):
    """Two residual blocks, the second with a shortcut convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(entry(), *block(1, 8, 6, 4))
        self.sum1, self.sum2 = entry(4), entry(3)
        self.body1 = nn.Sequential(*block(8, 8, 4, 4), *block(8, 8, 3, 4)[:2])
        self.body2 = nn.Sequential(*block(8, 16, 4, 4, stride=2), *block(16, 16, 4, 4)[:2])
        self.shortcut = nn.Sequential(*block(8, 16, 4, 4, kernel_size=1, padding=0, stride=2)[:2])
        self.relu1, self.relu2 = (qnn.QuantReLU(bit_width=b, return_quant_tensor=True) for b in (4, 3))
        self.head = nn.Sequential(
            nn.MaxPool2d(7), nn.Flatten(), qnn.QuantLinear(64, 10, bias=True, weight_bit_width=4)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = self.relu1(self.sum1(self.body1(x)) + self.sum1(x))
        x = self.relu2(self.sum2(self.body2(x)) + self.sum2(self.shortcut(x)))
        return self.head(x)


def perceptron() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), entry()]
    for inputs, weight_bits, activation_bits in ((784, 4, 3), (64, 2, 5), (64, 3, 2)):
        layers += [
            qnn.QuantLinear(inputs, 64, bias=False, weight_bit_width=weight_bits),
            nn.BatchNorm1d(64),
            qnn.QuantReLU(bit_width=activation_bits, return_quant_tensor=True),
        ]
    return nn.Sequential(*layers, qnn.QuantLinear(64, 10, bias=True, weight_bit_width=4))


def mobilenet() -> nn.Module:
    """MobileNetV1's 27 depthwise and pointwise convolutions, at a quarter of the width."""
    layers = [entry(), *block(3, 8, 8, 4, stride=2)]
    inputs = 8
    for outputs, stride in (
        *((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)),
        *[(128, 1)] * 5,
        *((256, 2), (256, 1)),
    ):
        layers += block(inputs, inputs, 4, 4, groups=inputs, stride=stride)
        layers += block(inputs, outputs, 4, 4, kernel_size=1, padding=0)
        inputs = outputs
    pool = qnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=4, float_to_int_impl_type="FLOOR")
    return nn.Sequential(*layers, pool, nn.Flatten(), qnn.QuantLinear(256, 10, bias=True, weight_bit_width=4))


def shipped(name: str) -> Network:
    """A model that Brevitas ships; with a quantizer in front where it has none at its input."""
    build, shape = case(name)
    if name.startswith("resnet"):
        return lambda: nn.Sequential(entry(), build()), shape
    return build, shape


NETWORKS: dict[str, Network] = {
    "plain": (plain, (1, 28, 28)),
    "residual": (Residual, (1, 28, 28)),
    "perceptron": (perceptron, (1, 28, 28)),
    "mobilenet": (mobilenet, (3, 64, 64)),
    **{
        name: shipped(name)
        for name in (
            *("tfc_1w1a", "tfc_1w2a", "tfc_2w2a", "cnv_1w1a", "cnv_1w2a", "cnv_2w2a"),
            *("resnet18_4w4a",),
        )
    },
}


def trained(network: Network, samples: int) -> tuple[nn.Module, Tensor]:
    """A network with random weights and statistics of random samples, and samples."""
    torch.manual_seed(0)
    build, shape = network
    model = build().train()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.rand(8, *shape) - 1)
    return model.eval(), 2 * torch.rand(samples, *shape) - 1
