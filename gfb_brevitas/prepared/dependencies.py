"""What the nodes of a captured graph depend on."""

from __future__ import annotations

from torch import fx

ORIGIN = "origin"
"""Key in the meta of a node: the number of the recorded operation whose value it computes. Programs are
checked by it: a pass that replaces a node hands its meta on; what computes another value has none."""


def depends_on_input(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that the inputs reach, in order, without the inputs themselves."""
    reached: dict[fx.Node, None] = {}
    inputs = set(graph.find_nodes(op="placeholder"))
    for node in graph.nodes:
        if any(source in reached or source in inputs for source in node.all_input_nodes):
            reached[node] = None
    return list(reached)
