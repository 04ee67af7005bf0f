"""Folding files for FINN from this project's choice of folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gfb_brevitas.dataflow import Accelerator, HardwareGraph, PopulationCost
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.space import Bits
from gfb_integrations.finn.estimate import FinnEstimate, FinnNode

Folding = dict[str, dict[str, int]]
"""FINN's attributes per node, as in its folding files."""


def folding_for(accelerator: Accelerator, bits: Bits, estimate: FinnEstimate) -> Folding:
    """The accelerator's folding of an allocation, under FINN's names of the nodes.

    Written to a JSON file it is a folding file for :func:`~gfb_integrations.finn.estimate` and for FINN's
    builds (``folding_config_file``).

    Example:
        >>> found = estimate("model.onnx", board="Pynq-Z1")  # doctest: +SKIP
        >>> bits = searchable.space.bits(searchable.allocation)  # doctest: +SKIP
        >>> Path("folding.json").write_text(
        ...     json.dumps(folding_for(accelerator, bits, found))
        ... )  # doctest: +SKIP

    Args:
        accelerator: The network on a board.
        bits: The allocation, ``(quantizers,)``, at which the estimated model was exported.
        estimate: FINN's estimate of the model, for the names; with the same ``standalone_thresholds``.

    Raises:
        ConfigurationError: If the estimate is of another network.
    """
    cost = accelerator.cost(np.asarray(bits)[None])
    found: Folding = {"Defaults": {}}
    for position, node in enumerate(corresponding_nodes(accelerator.graph, estimate.nodes)):
        found[node.name] = {
            name: value
            for name, value in _attributes(accelerator.graph, cost, position)
            if name in node.attributes
        }
    return found


def corresponding_nodes(graph: HardwareGraph, nodes: Sequence[FinnNode]) -> list[FinnNode]:
    """FINN's node for every layer of a graph: both are followed from their outputs to their inputs.

    Raises:
        ConfigurationError: If they are not the same network.
    """
    by_name = {node.name: node for node in nodes}
    read = {name for node in nodes for name in node.inputs}
    ends = [node for node in nodes if node.name not in read]
    waiting = list(zip([i for i in range(len(graph)) if i not in graph.consumed], ends, strict=False))
    found: dict[int, FinnNode] = {}
    while waiting:
        position, node = waiting.pop()
        found[position] = node
        inputs = graph.layers[position].inputs
        if not node.kind.startswith(graph.layers[position].node.kind) or len(inputs) != len(node.inputs):
            break
        waiting += [(i, by_name[name]) for i, name in zip(inputs, node.inputs, strict=True)]
    if len(found) != len(graph) or len({node.name for node in found.values()}) != len(nodes):
        raise ConfigurationError(
            f"The estimate is not of this network: FINN has {_counts(nodes)}, and the network has "
            f"{len(graph)} hardware layers. Estimate the model that was exported from it, with the same "
            "`standalone_thresholds`."
        )
    return [found[position] for position in range(len(graph))]


def _attributes(graph: HardwareGraph, cost: PopulationCost, position: int) -> list[tuple[str, int]]:
    found = [("PE", int(cost.pe[0, position])), ("SIMD", int(cost.simd[0, position]))]
    if isinstance(graph.layers[position].node, SlidingWindow):
        found.append(("parallel_window", int(cost.parallel_window[0, position])))
    return found


def _counts(nodes: Sequence[FinnNode]) -> str:
    counts: Mapping[str, int] = {kind: sum(n.kind == kind for n in nodes) for kind in {n.kind for n in nodes}}
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
