"""The hardware layers of an allocation with their folding, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gfb_brevitas.dataflow.accelerator import Accelerator
from gfb_brevitas.hardware.sliding_window import SlidingWindow
from gfb_brevitas.space import Bits


@dataclass(frozen=True, kw_only=True)
class FoldedLayer:
    """A hardware layer with its parallelism.

    Attributes:
        name: Name of the layer of the model that it comes from.
        kind: FINN's name of its kind, e.g. ``"MVAU"``.
        inputs: Positions of the layers that feed it.
        pe: Outputs that are computed at once.
        simd: Inputs that are taken at once.
        parallel_window: Whether a sliding window gives out whole windows; ``None`` for other layers.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    pe: int
    simd: int
    parallel_window: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """The layer as plain data for JSON."""
        return asdict(self) | {"inputs": list(self.inputs)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> FoldedLayer:
        """Read what :meth:`to_dict` made.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        window = document["parallel_window"]
        return cls(
            name=str(document["name"]),
            kind=str(document["kind"]),
            inputs=tuple(int(position) for position in document["inputs"]),
            pe=int(document["pe"]),
            simd=int(document["simd"]),
            parallel_window=None if window is None else bool(window),
        )


def folded_layers(accelerator: Accelerator, bits: Bits) -> tuple[FoldedLayer, ...]:
    """The accelerator's hardware layers with the folding that they have for an allocation.

    Args:
        accelerator: The network on a board.
        bits: The allocation, ``(quantizers,)``.
    """
    cost = accelerator.cost(np.asarray(bits)[None])
    return tuple(
        FoldedLayer(
            name=layer.name,
            kind=layer.node.kind,
            inputs=layer.inputs,
            pe=int(cost.pe[0, position]),
            simd=int(cost.simd[0, position]),
            parallel_window=(
                bool(cost.parallel_window[0, position]) if isinstance(layer.node, SlidingWindow) else None
            ),
        )
        for position, layer in enumerate(accelerator.graph)
    )
