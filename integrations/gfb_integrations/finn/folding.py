"""Folding files for FINN from this project's choice of folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from gfb_brevitas.dataflow import Accelerator, FoldedLayer, folded_layers
from gfb_brevitas.errors import ConfigurationError
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
    return folding_of(folded_layers(accelerator, bits), estimate)


def folding_of(layers: Sequence[FoldedLayer], estimate: FinnEstimate) -> Folding:
    """The folding of hardware layers under FINN's names of the nodes.

    Args:
        layers: The layers with their folding, as a run's folder holds them.
        estimate: FINN's estimate of the model, for the names; with the same ``standalone_thresholds``.

    Raises:
        ConfigurationError: If the estimate is of another network.
    """
    found: Folding = {"Defaults": {}}
    for layer, node in zip(layers, corresponding_nodes(layers, estimate.nodes), strict=True):
        folding = {"PE": layer.pe, "SIMD": layer.simd}
        if layer.parallel_window is not None:
            folding["parallel_window"] = int(layer.parallel_window)
        found[node.name] = {name: value for name, value in folding.items() if name in node.attributes}
    return found


def corresponding_nodes(layers: Sequence[FoldedLayer], nodes: Sequence[FinnNode]) -> list[FinnNode]:
    """FINN's node for every layer of a network: both are followed from their outputs to their inputs.

    Raises:
        ConfigurationError: If they are not the same network.
    """
    by_name = {node.name: node for node in nodes}
    read = {name for node in nodes for name in node.inputs}
    consumed = set(chain.from_iterable(layer.inputs for layer in layers))
    ends = [node for node in nodes if node.name not in read]
    waiting = list(zip([i for i in range(len(layers)) if i not in consumed], ends, strict=False))
    found: dict[int, FinnNode] = {}
    while waiting:
        position, node = waiting.pop()
        found[position] = node
        inputs = layers[position].inputs
        if not node.kind.startswith(layers[position].kind) or len(inputs) != len(node.inputs):
            break
        waiting += [(i, by_name[name]) for i, name in zip(inputs, node.inputs, strict=True)]
    if len(found) != len(layers) or len({node.name for node in found.values()}) != len(nodes):
        raise ConfigurationError(
            f"The estimate is not of this network: FINN has {_counts(nodes)}, and the network has "
            f"{len(layers)} hardware layers. Estimate the model that was exported from it, with the same "
            "`standalone_thresholds`."
        )
    return [found[position] for position in range(len(layers))]


def _counts(nodes: Sequence[FinnNode]) -> str:
    counts: Mapping[str, int] = {kind: sum(n.kind == kind for n in nodes) for kind in {n.kind for n in nodes}}
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
