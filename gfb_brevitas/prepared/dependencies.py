"""What the nodes of a captured graph depend on."""

from __future__ import annotations

from torch import fx

INPUT = "depends_on_input"
SITES = "sites"


def depends_on_input(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that the inputs reach, in order, without the inputs themselves."""
    reached: dict[fx.Node, None] = {}
    inputs = set(graph.find_nodes(op="placeholder"))
    for node in graph.nodes:
        if any(source in reached or source in inputs for source in node.all_input_nodes):
            reached[node] = None
    return list(reached)
