"""The figures of :mod:`gfb_integrations.plots` for papers, drawn with Matplotlib.

Each function takes a :class:`gfb_brevitas.search.RecordedRun` and returns a ``matplotlib.figure.Figure``, as
wide as two columns of text; pyplot and its state are not used. Kinds and feasibility differ by hatching,
dashes and symbols as well as by colour, so that a figure survives a black and white printer.

Example:
    >>> from gfb_brevitas import RecordedRun
    >>> save_figures(RecordedRun.load("runs/digits"), "runs/digits/plots")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gfb_integrations._optional import require

if TYPE_CHECKING:
    from gfb_integrations.plots.paper._bars import bits_per_layer, costs_per_layer
    from gfb_integrations.plots.paper._clipping import clipping_curves
    from gfb_integrations.plots.paper._comparison import comparison
    from gfb_integrations.plots.paper._convergence import convergence
    from gfb_integrations.plots.paper._front import front
    from gfb_integrations.plots.paper._resources import resources_per_layer
    from gfb_integrations.plots.paper._saving import save_figures
    from gfb_integrations.plots.paper._sensitivity import sensitivity
    from gfb_integrations.plots.paper._training import training_curves

__all__ = [
    "bits_per_layer",
    "clipping_curves",
    "comparison",
    "convergence",
    "costs_per_layer",
    "front",
    "resources_per_layer",
    "save_figures",
    "sensitivity",
    "training_curves",
]

_MODULES = {
    "bits_per_layer": "_bars",
    "clipping_curves": "_clipping",
    "comparison": "_comparison",
    "convergence": "_convergence",
    "costs_per_layer": "_bars",
    "front": "_front",
    "resources_per_layer": "_resources",
    "save_figures": "_saving",
    "sensitivity": "_sensitivity",
    "training_curves": "_training",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("matplotlib", extra="plots", purpose="Drawing figures for papers")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
