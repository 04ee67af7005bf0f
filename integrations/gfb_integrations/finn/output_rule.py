"""Models that put out nothing FINN can build."""

from __future__ import annotations

from collections.abc import Iterator

from gfb_brevitas.layer_graph import LayerGraph
from gfb_integrations.finn.findings import Finding
from gfb_integrations.finn.layer_walks import finding


def outputs(graph: LayerGraph) -> Iterator[Finding]:
    """Outputs that are no tensor computed from the input, or the input as it is."""
    nodes = list(graph)
    ends = list(graph.of("output"))
    if nodes and not ends:
        yield finding(
            nodes[-1],
            "no output",
            "The model puts out no tensor that it computes from its input.",
            "Return the tensor itself: not None, a constant or an object that holds it.",
        )
    for end in ends:
        if all(source.op == "input" for source in graph.producers(end)):
            yield finding(
                end,
                "nothing computed",
                "It is the input of the model as it is.",
                "Leave it out: there is nothing to build.",
            )
