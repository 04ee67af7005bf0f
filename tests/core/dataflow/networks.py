"""Small networks, one with every kind of hardware layer, and their profiles."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant import TruncTo8bit
from torch import Tensor, nn

import gfb_brevitas as gfb


def entry(bits: int = 8) -> nn.Module:
    return qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True)


def relu(bits: int = 4) -> nn.Module:
    return qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)


def conv(inputs: int, outputs: int, bits: int = 4, **settings: Any) -> nn.Module:
    settings = {"kernel_size": 3, "padding": 1, "bias": False, "weight_bit_width": bits, **settings}
    return qnn.QuantConv2d(inputs, outputs, **settings)


def linear(inputs: int, outputs: int, bits: int = 4, *, bias: bool = True) -> nn.Module:
    return qnn.QuantLinear(inputs, outputs, bias=bias, weight_bit_width=bits)


def plain() -> nn.Module:
    """Padding, a depthwise convolution, both kinds of pooling."""
    return nn.Sequential(
        entry(),
        *(conv(3, 8), nn.BatchNorm2d(8), relu(), nn.MaxPool2d(2)),
        *(conv(8, 8, 3, groups=8), nn.BatchNorm2d(8), relu(5)),
        *(conv(8, 16, 2, kernel_size=1, padding=0), nn.BatchNorm2d(16), relu(3)),
        qnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=6, float_to_int_impl_type="FLOOR"),
        *(nn.Flatten(), linear(64, 10)),
    )


class Residual(nn.Module):
    """One block, whose branches share a quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(entry(), conv(3, 8), relu())
        self.body = nn.Sequential(conv(8, 8, 3), relu(5), conv(8, 8, 2))
        self.shared, self.after = entry(4), relu(3)
        self.head = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), linear(32, 10, bias=False))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return self.head(self.after(self.shared(self.body(x)) + self.shared(x)))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), entry(), linear(192, 32, 3, bias=False), nn.BatchNorm1d(32), relu(2), linear(32, 10)
    )


def searchable(model: nn.Module) -> gfb.SearchableModel:
    """With statistics of random images of 3 x 8 x 8."""
    model.train()
    for _ in range(2):
        model(torch.rand(4, 3, 8, 8))
    return gfb.make_searchable(model.eval(), torch.rand(1, 3, 8, 8))
