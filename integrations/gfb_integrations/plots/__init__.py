"""Figures of a run: interactive ones here, for papers in :mod:`gfb_integrations.plots.paper`.

Each function takes a :class:`gfb_brevitas.search.RecordedRun` and returns a ``plotly.graph_objects.Figure``.
What a figure shows is computed in :mod:`gfb_integrations.plots.data`, which needs no plotting library.

Example:
    >>> from gfb_brevitas import RecordedRun
    >>> bits_per_layer(RecordedRun.load("runs/digits")).show()  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gfb_integrations._optional import require

if TYPE_CHECKING:
    from gfb_integrations.plots._bits_per_layer import bits_per_layer
    from gfb_integrations.plots._clipping_curves import clipping_curves
    from gfb_integrations.plots._comparison import comparison
    from gfb_integrations.plots._convergence import convergence
    from gfb_integrations.plots._costs_per_layer import costs_per_layer
    from gfb_integrations.plots._front import front
    from gfb_integrations.plots._resources_per_layer import resources_per_layer
    from gfb_integrations.plots._sensitivity import sensitivity
    from gfb_integrations.plots._training_curves import training_curves

__all__ = [
    "bits_per_layer",
    "clipping_curves",
    "comparison",
    "convergence",
    "costs_per_layer",
    "front",
    "resources_per_layer",
    "sensitivity",
    "training_curves",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("plotly", extra="report", purpose="Drawing interactive figures")
    return getattr(importlib.import_module(f"{__name__}._{name}"), name)
