"""Example inputs of a float model: their values at the nodes of its trace, and others like them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gfb_brevitas.adapters.brevitas_fx import GraphModule, Interpreter, Node
from gfb_brevitas.adapters.float_tracing import arguments_of
from gfb_brevitas.adapters.tracing import ExampleInputs


class ExampleValues:
    """The values of a graph's nodes for the example inputs, computed when one is first asked for."""

    def __init__(self, graph: GraphModule, values: list[Any]) -> None:
        self._graph, self._values = graph, values
        self._known: dict[Node, Any] = {}

    def __call__(self, node: Node) -> Any:
        """The value of a node."""
        if node not in self._known:
            interpreter = Interpreter(self._graph, garbage_collect_values=False)
            with torch.no_grad():
                interpreter.run(*self._values)
            self._known = dict(interpreter.env)
        return self._known[node]


def placeholders(graph: GraphModule) -> list[Node]:
    """The inputs of a graph, in order."""
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def placeholder_values(graph: GraphModule, model: nn.Module, inputs: ExampleInputs) -> list[Any]:
    """Example inputs in the order of a graph's placeholders."""
    given: Mapping[str, Any] = arguments_of(model, inputs)[0]
    return [given[str(node.target).lstrip("*")] for node in placeholders(graph)]


def noise_like(inputs: ExampleInputs) -> ExampleInputs:
    """Inputs of the same shapes, with noise of the same mean and deviation in place of floats."""
    generator = torch.Generator().manual_seed(0)

    def noise(value: Any) -> Any:
        if not is_float(value) or value.numel() < 2:
            return value
        drawn = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
        return value.mean() + value.std() * drawn

    changed: ExampleInputs = tree_map(noise, inputs)
    return changed


def is_float(value: Any) -> bool:
    """Whether an input is a tensor of floats."""
    return isinstance(value, Tensor) and value.is_floating_point()
