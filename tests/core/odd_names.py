"""Names of layers that mean something elsewhere: in markup, patterns, formulas, Markdown, HTML."""

from __future__ import annotations

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

NAMES = (
    "branch[left]",
    "branch[0]",
    "[/]",
    "[bold]x",
    "[/bold]",
    "[link=x]",
    "a*?[!b]",
    "<script>x</script>",
    "$x$ %{y}",
    "a|b`c`_d_",
    ":warning:",
    "größe-層",
    "back\\slash\\[x]",
    "x" * 120,
)


class NamedLayers(nn.Module):
    """A layer under every name."""

    example = torch.linspace(-1, 1, 16).reshape(2, 8)

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {name: qnn.QuantLinear(8, 8, bias=False) for name in NAMES}
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x
