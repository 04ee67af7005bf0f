"""Which layers normalise by statistics of their own input, which FINN computes nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from gfb_brevitas.layer_graph import LayerGraph
from gfb_integrations.finn.findings import Finding
from gfb_integrations.finn.layer_walks import finding

_STATISTICS = (
    *("aten.native_group_norm", "aten.native_layer_norm", "aten._fused_rms_norm", "aten.rms_norm"),
    *("aten.var", "aten.var_mean", "aten.std", "aten.std_mean", "aten.norm", "aten.linalg_vector_norm"),
)


def statistics(graph: LayerGraph) -> Iterator[Finding]:
    """Normalisations other than a BatchNorm with running statistics."""
    for node in graph.of("other"):
        about = node.attributes
        if about.get("own_statistics") or about.get("target") in _STATISTICS:
            yield finding(
                node,
                "statistics",
                f"It normalises by statistics of its own input ({about['target']}).",
                "Use a BatchNorm with running statistics, which thresholds take up, and train it anew.",
            )
