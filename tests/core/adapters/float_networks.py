"""Float networks as people bring them, each with something that graph quantization has to handle."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PaddedOnOneSide(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class PaddedByALayer(nn.Conv2d):
    """As EfficientNet-Lite's convolutions are."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        uneven = nn.ZeroPad2d((0, 1, 0, 1))
        self.static_padding = uneven if stride > 1 else nn.ZeroPad2d((kernel // 2,) * 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.static_padding(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class PaddedBySize(nn.Conv2d):
    """Padding as TensorFlow's "same", decided by the size of the input."""

    def forward(self, x: Tensor) -> Tensor:
        amounts = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True):
            needed = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            amounts = [needed // 2, needed - needed // 2, *amounts]
        if any(amount > 0 for amount in amounts):
            x = F.pad(x, amounts)
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Standardized(nn.Conv2d):
    """A weight that is computed in the forward: no layer of PyTorch does the same."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred, self.bias, self.stride, self.padding)


class Undecided(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Renamed(nn.Conv2d):
    """A subclass without a forward of its own."""


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OwnLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, rows: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            0.3 * torch.randn(inputs, outputs) if rows else torch.randn(outputs, inputs)
        )
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.rows else F.linear(x, self.weight)


class Twice(nn.Module):
    """One convolution in two places, behind one BatchNorm or two."""

    def __init__(self, norms: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(norms))
        for place, norm in enumerate(self.norms):
            norm.running_mean += 0.1 * place
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for place in range(2):
            x = self.layer(x)
            x = self.relu(self.norms[place % len(self.norms)](x) if self.norms else x)
        return x


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.whole = nn.MultiheadAttention(8, 2, batch_first=True)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            return self.out(self.whole(x, x, x, need_weights=False)[0])
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.kind == "function":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v
        return x + self.out(y.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.table(tokens)).mean(1))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.join, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        y = self.two(x).relu()
        z = torch.add(F.relu(x + y), y)  # y meets two sums of which one reads the other
        z = F.relu6(self.join(torch.concat([z, x], 1))).clamp(0, 6)
        return self.head(F.avg_pool2d(z, z.size()[3]).view(z.size(0), -1))


class ShortcutOfZeros(nn.Module):
    """ResNet20's shortcut "A"."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        x = F.relu(self.two(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0))
        return self.head(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))


class SqueezeAndExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.squeeze, self.excite = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.one(x))
        factor = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x * factor).mean((2, 3))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.inner = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.head(torch.cat([self.up(self.inner(x)), x], 1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells, self.head = kind(5, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


def transposed(rank: int, groups: int) -> nn.Sequential:
    """A transposed convolution over ``rank`` dimensions, with a BatchNorm to be folded."""
    kinds: dict[int, Any] = {
        1: (nn.ConvTranspose1d, nn.BatchNorm1d, nn.Conv1d),
        2: (nn.ConvTranspose2d, nn.BatchNorm2d, nn.Conv2d),
        3: (nn.ConvTranspose3d, nn.BatchNorm3d, nn.Conv3d),
    }
    convolution, norm, last = kinds[rank]
    layers = nn.Sequential(
        convolution(4, 8, 3, 2, padding=1, output_padding=1, groups=groups), norm(8), nn.ReLU(), last(8, 2, 1)
    )
    layers[1].running_var *= torch.linspace(0.2, 2, 8)
    return layers
