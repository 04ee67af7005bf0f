"""A deep graph network (GCNII, Chen et al. 2020, arXiv 2007.02133) on communities of nodes."""

from __future__ import annotations

import math

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

Graph = tuple[tuple[Tensor, Tensor, Tensor], Tensor]


class DeepGraphNetwork(nn.Module):
    """Layers of ``relu(((1 - a) A h + a h0)((1 - b) I + b W))`` between two linear layers."""

    def __init__(self, features: int, classes: int, width: int = 64, layers: int = 64) -> None:
        super().__init__()
        self.first, self.last = self._linear(features, width), self._linear(width, classes)
        self.layers = nn.ModuleList(self._linear(width, width) for _ in range(layers))
        self.acts = nn.ModuleList(self._relu() for _ in range(layers + 1))
        self.mixes = nn.ModuleList(self._identity() for _ in range(layers))
        self.strengths = [math.log(0.5 / number + 1) for number in range(1, layers + 1)]

    def forward(self, x: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
        """Class scores of every node.

        Args:
            x: Shape ``(nodes, features)``.
            edges: Shape ``(2, edges)``, from and to.
            weights: Shape ``(edges, 1)``, of the normalised adjacency.
        """
        start = h = self.acts[0](self.first(x))
        for layer, act, mix, b in zip(self.layers, self.acts[1:], self.mixes, self.strengths, strict=True):
            neighbours = torch.zeros_like(h).index_add(0, edges[1], weights * h[edges[0]])
            mixed = mix(0.9 * neighbours + 0.1 * start)
            h = act((1 - b) * mixed + b * layer(mixed))
        return self.last(h)

    def _linear(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs)

    def _relu(self) -> nn.Module:
        return nn.ReLU()

    def _identity(self) -> nn.Module:
        return nn.Identity()


class QuantDeepGraphNetwork(DeepGraphNetwork):
    """The same of Brevitas layers."""

    def _linear(self, inputs: int, outputs: int) -> nn.Module:
        return qnn.QuantLinear(inputs, outputs, bias=True)

    def _relu(self) -> nn.Module:
        return qnn.QuantReLU()

    def _identity(self) -> nn.Module:
        return qnn.QuantIdentity()


def deep_graph(nodes: int = 2_700, features: int = 256, classes: int = 7) -> Graph:
    """A graph the size of Cora whose neighbours mostly share a class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (nodes,), generator=generator).sort().values
    source = torch.arange(nodes).repeat(4)
    near = (source + torch.randint(1, 40, source.shape, generator=generator)) % nodes
    loops = torch.arange(nodes)
    edges = torch.stack([torch.cat([source, near, loops]), torch.cat([near, source, loops])])
    degree = torch.bincount(edges[1], minlength=nodes).float().rsqrt()
    weights = (degree[edges[0]] * degree[edges[1]])[:, None]
    x = torch.randn(classes, features, generator=generator)[labels]
    x = 0.3 * x + torch.randn(nodes, features, generator=generator)
    return (x, edges, weights), labels
