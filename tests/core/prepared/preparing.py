"""What the tests of prepared programs share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import brevitas.nn as qnn
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.evaluation.modes import BatchNormStatistics, inference_only
from gfb_brevitas.prepared.capture import Call, Captured, capture
from gfb_brevitas.prepared.prepare import Prepared, prepare


class Block(nn.Module):
    """A residual block whose branches share a quantizer."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = qnn.QuantConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = qnn.QuantReLU(return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            qnn.QuantConv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
        self.branch = qnn.QuantIdentity(return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.branch(y) + self.branch(self.shortcut(x)))


def residual_network(channels: int = 16) -> nn.Module:
    """12x12 images of 3 channels; products of more than a million multiplications at 64 images."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        qnn.QuantReLU(return_quant_tensor=True),
        Block(channels, channels, 1),
        Block(channels, 2 * channels, 2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(2 * channels * 9, 10, bias=True),
    )


def images(samples: int = 64, channels: int = 3, size: int = 12, seed: int = 0) -> Tensor:
    """Random images."""
    return torch.randn(samples, channels, size, size, generator=torch.Generator().manual_seed(seed))


def searchable_model(model: nn.Module, inputs: Any, **settings: Any) -> SearchableModel:
    """Searchable and calibrated, with BatchNorm statistics of the inputs."""
    torch.manual_seed(0)
    searchable = gfb.make_searchable(model, inputs, **settings)
    with torch.no_grad():
        searchable.train()
        for _ in range(2):
            searchable(inputs)
    searchable.eval()
    searchable.calibrate([inputs])
    return searchable


def searchable_model_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> SearchableModel:
    """Searchable and calibrated, for a model of several inputs."""
    searchable = gfb.make_searchable(model, inputs).eval()
    searchable.calibrate([inputs], forward=lambda batch: searchable(*batch))
    return searchable


def prepared(
    model: SearchableModel, *inputs: Tensor, integers: bool, batchnorm: BatchNormStatistics = "running"
) -> tuple[Captured, Prepared]:
    """A program for inputs like these."""
    with inference_only(model, batchnorm):
        captured = capture(model.model, Call.of(inputs, {}))
    largest = {site.index: 8 for site in captured.sites}
    return captured, prepare(captured, largest, integers=integers)


def tensors(output: Any) -> list[Tensor]:
    """All tensors in an output."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def share_that_differs(
    model: SearchableModel,
    program: Any,
    inputs: Iterable[Tensor],
    bits: Any,
    batchnorm: BatchNormStatistics = "running",
) -> float:
    """The share of a model's output values that a program computes otherwise, beyond rounding noise."""
    inputs = tuple(inputs)
    model.set_bits(bits)
    with inference_only(model, batchnorm):
        expected = tensors(model(*inputs))
        computed = program(inputs)
    assert len(expected) == len(computed)
    differing = 0
    for one, other in zip(expected, computed, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        one, other = one.double(), other.double()
        noise = 1e-4 * float(one.abs().max()) if one.numel() else 0.0
        differing += int((~torch.isclose(one, other, rtol=1e-4, atol=noise)).sum())
    return differing / sum(tensor.numel() for tensor in expected)
