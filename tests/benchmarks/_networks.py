"""The networks that speed is measured on: each as a float model and as a stock Brevitas model.

Both are written as a user would write them, with the same shapes. Weights are random: nothing here depends on
what a network has learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network to measure.

    Attributes:
        name: What it is called in tables.
        make_float: Makes the float model.
        make_brevitas: Makes the same model of stock Brevitas layers.
        make_batch: Makes a batch: inputs (one tensor, or a tuple of arguments) and labels for cross-entropy.
        channels_last: Whether the float model is faster in that memory format.
        convolutional: Whether convolutions do most of its work.
    """

    name: str
    make_float: Callable[[], nn.Module]
    make_brevitas: Callable[[], nn.Module]
    make_batch: Callable[[], tuple[Inputs, Tensor]]
    channels_last: bool
    convolutional: bool


def _images(samples: int = 128, classes: int = 10) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 3, 32, 32), torch.randint(0, classes, (samples,))


# --- ResNet20 -------------------------------------------------------------------------------------


class _FloatBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class _QuantBlock(nn.Module):
    """Both branches of the addition share one quantizer."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = qnn.QuantConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = qnn.QuantReLU(return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv = qnn.QuantConv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.branch_quant = qnn.QuantIdentity(return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(return_quant_tensor=True)

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.branch_quant(y) + self.branch_quant(self.shortcut(x)))


def _resnet20(block: type[nn.Module], stem: list[nn.Module], head: nn.Module) -> nn.Module:
    widths = [16] * 3 + [32] * 3 + [64] * 3
    strides = [1, 1, 1, 2, 1, 1, 2, 1, 1]
    inputs = [16, *widths[:-1]]
    blocks = [block(i, o, s) for i, o, s in zip(inputs, widths, strides, strict=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def resnet20() -> nn.Module:
    """ResNet20 for 32x32 images."""
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return _resnet20(_FloatBlock, stem, nn.Linear(64, 10))


def quant_resnet20() -> nn.Module:
    """ResNet20 of Brevitas layers."""
    stem = [
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        qnn.QuantReLU(return_quant_tensor=True),
    ]
    return _resnet20(_QuantBlock, stem, qnn.QuantLinear(64, 10, bias=True))


# --- MobileNetV1 ----------------------------------------------------------------------------------

_MOBILENET = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 256, 1)]


def mobilenet() -> nn.Module:
    """A stem and pairs of depthwise and pointwise convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for inputs, outputs, stride in _MOBILENET:
        layers += [
            nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def quant_mobilenet() -> nn.Module:
    """The same of Brevitas layers."""
    relu = partial(qnn.QuantReLU, return_quant_tensor=True)
    layers: list[nn.Module] = [
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        relu(),
    ]
    for inputs, outputs, stride in _MOBILENET:
        layers += [
            qnn.QuantConv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            relu(),
            qnn.QuantConv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            relu(),
        ]
    head = qnn.QuantLinear(256, 10, bias=True)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


# --- transformer ----------------------------------------------------------------------------------


class TransformerClassifier(nn.Module):
    """One pre-norm transformer block over a sequence, then the mean of the tokens."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.act = nn.Linear(width, 4 * width), nn.ReLU()
        self.down, self.head = nn.Linear(4 * width, width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(self.act(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class QuantTransformerClassifier(nn.Module):
    """The same of Brevitas layers."""

    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = qnn.QuantMultiheadAttention(width, heads, batch_first=True)
        self.quant1 = qnn.QuantIdentity(return_quant_tensor=True)
        self.up, self.act = qnn.QuantLinear(width, 4 * width, bias=True), qnn.QuantReLU()
        self.down = qnn.QuantLinear(4 * width, width, bias=True)
        self.quant2 = qnn.QuantIdentity(return_quant_tensor=True)
        self.head = qnn.QuantLinear(width, 10, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(self.act(self.up(self.quant1(self.norm2(x)))))
        return self.head(self.quant2(x.mean(1)))


# --- LSTM -----------------------------------------------------------------------------------------


class RecurrentClassifier(nn.Module):
    """An LSTM over a sequence and a linear layer on its last output."""

    def __init__(self, lstm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.lstm, self.head = lstm, head

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.lstm(x)[0]
        return self.head(outputs[:, -1])


def lstm() -> nn.Module:
    """64 features, 128 hidden units."""
    return RecurrentClassifier(nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10))


def quant_lstm() -> nn.Module:
    """The same of Brevitas layers."""
    head = nn.Sequential(qnn.QuantIdentity(return_quant_tensor=True), qnn.QuantLinear(128, 10, bias=True))
    return RecurrentClassifier(qnn.QuantLSTM(64, 128, batch_first=True), head)


# --- graph network --------------------------------------------------------------------------------


class GraphNetwork(nn.Module):
    """Two graph convolutions: neighbours' features are averaged by a dense normalised adjacency."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(64, width), nn.ReLU()
        self.second = nn.Linear(width, 10)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = self.act(adjacency @ self.first(x))
        return adjacency @ self.second(x)


class QuantGraphNetwork(nn.Module):
    """The same of Brevitas layers."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.quant_in = qnn.QuantIdentity(return_quant_tensor=True)
        self.first, self.second = qnn.QuantLinear(64, width, bias=True), qnn.QuantLinear(width, 10, bias=True)
        self.quant1, self.quant2 = qnn.QuantIdentity(), qnn.QuantIdentity()
        self.act = qnn.QuantReLU(return_quant_tensor=True)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = self.act(adjacency @ self.quant1(self.first(self.quant_in(x))))
        return adjacency @ self.quant2(self.second(x))


def _graph(nodes: int = 2000, neighbours: int = 8) -> tuple[Inputs, Tensor]:
    edges = torch.zeros(nodes, nodes).scatter_(1, torch.randint(0, nodes, (nodes, neighbours)), 1.0)
    edges = torch.maximum(edges, edges.T).fill_diagonal_(1.0)
    degree = edges.sum(1).rsqrt()
    adjacency = degree[:, None] * edges * degree
    return (torch.randn(nodes, 64), adjacency), torch.randint(0, 10, (nodes,))


def _sequences(samples: int, steps: int, features: int) -> tuple[Inputs, Tensor]:
    return torch.randn(samples, steps, features), torch.randint(0, 10, (samples,))


_ALL = [
    Network(
        name="resnet20",
        make_float=resnet20,
        make_brevitas=quant_resnet20,
        make_batch=_images,
        channels_last=True,
        convolutional=True,
    ),
    Network(
        name="mobilenet",
        make_float=mobilenet,
        make_brevitas=quant_mobilenet,
        make_batch=_images,
        channels_last=True,
        convolutional=True,
    ),
    Network(
        name="transformer",
        make_float=TransformerClassifier,
        make_brevitas=QuantTransformerClassifier,
        make_batch=partial(_sequences, 32, 64, 128),
        channels_last=False,
        convolutional=False,
    ),
    Network(
        name="lstm",
        make_float=lstm,
        make_brevitas=quant_lstm,
        make_batch=partial(_sequences, 64, 20, 64),
        channels_last=False,
        convolutional=False,
    ),
    Network(
        name="gnn",
        make_float=GraphNetwork,
        make_brevitas=QuantGraphNetwork,
        make_batch=_graph,
        channels_last=False,
        convolutional=False,
    ),
]
NETWORKS: dict[str, Network] = {network.name: network for network in _ALL}
