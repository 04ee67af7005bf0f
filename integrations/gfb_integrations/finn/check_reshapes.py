"""Which changes of shape FINN does not build."""

from __future__ import annotations

from collections.abc import Iterator

from gfb_brevitas.layer_graph import LayerGraph
from gfb_integrations.finn.findings import Finding
from gfb_integrations.finn.layer_walks import finding

_FLATTENS = ("aten.flatten", "aten.view", "aten._unsafe_view", "aten.reshape", "aten._reshape_alias")


def reshapes(graph: LayerGraph) -> Iterator[Finding]:
    """Changes of shape that are not a flattening of whole samples."""
    for node in graph.of("reshape"):
        (source,) = graph.producers(node)
        keeps_order = node.attributes["target"] in _FLATTENS
        if not (keeps_order and (len(node.shape) == 1 or node.shape == source.shape)):
            yield finding(
                node,
                "reshape",
                f"{node.attributes['target']} makes {_text(node.shape)} of {_text(source.shape)}.",
                "Flatten whole samples, in one step (nn.Flatten), and move no axes.",
            )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
