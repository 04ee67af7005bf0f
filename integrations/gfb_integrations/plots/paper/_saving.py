"""Writing all figures of a run to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.files import replacing
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.search.saving import saving
from gfb_integrations.plots import data
from gfb_integrations.plots.paper._bars import bits_per_layer, costs_per_layer
from gfb_integrations.plots.paper._clipping import clipping_curves
from gfb_integrations.plots.paper._comparison import comparison
from gfb_integrations.plots.paper._convergence import convergence
from gfb_integrations.plots.paper._figure import STYLE
from gfb_integrations.plots.paper._front import front
from gfb_integrations.plots.paper._resources import resources_per_layer
from gfb_integrations.plots.paper._sensitivity import sensitivity
from gfb_integrations.plots.paper._training import training_curves

FORMATS = ("pdf", "png", "svg")
_DOTS_PER_INCH = 200
_UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}

_FIGURES: tuple[tuple[type[Any], Callable[[RecordedRun], Figure]], ...] = (
    (data.BitsPerLayer, bits_per_layer),
    (data.Front, front),
    (data.Convergence, convergence),
    (data.Training, training_curves),
    (data.Clipping, clipping_curves),
    (data.Sensitivity, sensitivity),
    (data.LayerCosts, costs_per_layer),
    (data.ResourcesPerLayer, resources_per_layer),
    (data.Comparison, comparison),
)


def save_figures(
    run: RecordedRun, folder: str | os.PathLike[str], formats: Sequence[str] = FORMATS
) -> tuple[Path, ...]:
    """Write every figure that the run has something to show for.

    The files are the same whenever they are written; those of the same name are replaced.

    Example:
        >>> save_figures(run, "runs/digits/plots", formats=["pdf"])  # doctest: +SKIP
        (PosixPath('runs/digits/plots/bits_per_layer.pdf'), ...)

    Args:
        run: The run.
        folder: Where to write; made if it does not exist.
        formats: Some of ``"pdf"``, ``"png"``, ``"svg"``.

    Returns:
        The files.

    Raises:
        ConfigurationError: If a format is not known.
        CheckpointError: If a file cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigurationError(f"A format must be one of {', '.join(FORMATS)}; got {name!r}.")
    written = []
    for kind, draw in _FIGURES:
        if kind(run=run).missing is None:
            figure = draw(run)
            written += [_saved(figure, Path(folder) / f"{draw.__name__}.{name}", name) for name in formats]
    return tuple(written)


def _saved(figure: Figure, path: Path, name: str) -> Path:
    with saving(path), replacing(path) as temporary, mpl.rc_context(STYLE):
        figure.savefig(temporary, format=name, dpi=_DOTS_PER_INCH, metadata=_UNDATED[name])
    return path
