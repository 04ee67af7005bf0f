"""Bringing a model to a saved state of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.errors import AllocationError, CheckpointError, ConfigurationError
from gfb_brevitas.search.checkpoint import load_model_state
from gfb_brevitas.search.fingerprint import described_model
from gfb_brevitas.search.run_folder import RunFolder
from gfb_brevitas.space import SearchSpace

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel


def load_best(run_folder: str | os.PathLike[str], model: SearchableModel) -> BitAllocation:
    """Bring a model to the best feasible state of a run, whether the run ended or not.

    What a run that diverged is gone on from: with a new run, other settings and
    ``calibrate=False``.

    Example:
        >>> model = make_searchable(make_model(), example_inputs)  # doctest: +SKIP
        >>> load_best("runs/first", model)  # doctest: +SKIP
        >>> fit(model, calibrate=False, run_folder="runs/second", ...)  # doctest: +SKIP

    Args:
        run_folder: The run's folder; it is read only.
        model: A searchable model that was made in the same way as that of the run. Its weights, clipping
            values and allocation change.

    Returns:
        The allocation of the best state, which is the model's now.

    Raises:
        CheckpointError: If the folder holds no run, the run has no such state (yet), its files are
            damaged, or the model is of another kind.
        ConfigurationError: If ``model`` is not a searchable model.
    """
    require_searchable(model)
    folder = RunFolder(Path(run_folder))
    folder.require_same_model(described_model(model))
    if not folder.checkpoints.best.exists():
        raise CheckpointError(
            f"The run in {str(folder.path)!r} ended before its first epoch was over whose allocation "
            "satisfies the budgets: no state was kept that satisfies the budgets. Start a run anew."
        )
    best = folder.checkpoints.load_best()
    return load_state(model, best.allocation, best.model)


def load_state(model: SearchableModel, allocation: Mapping[str, int], state: dict[str, Any]) -> BitAllocation:
    """Bring a model to an allocation and weights out of a checkpoint.

    Raises:
        CheckpointError: If they do not fit the model.
    """
    try:
        checked = model.space.check(allocation)
    except AllocationError as error:
        raise CheckpointError(f"The checkpoint's allocation does not fit the model: {error}") from error
    load_model_state(model, state)
    model.set_allocation(checked)
    return checked


def require_searchable(model: object) -> None:
    """Check that ``model`` is a searchable model.

    Raises:
        ConfigurationError: If it is anything else.
    """
    if not isinstance(getattr(model, "space", None), SearchSpace):
        raise ConfigurationError(
            "`model` must be a searchable model, made by make_searchable(model, example_inputs); "
            f"got {type(model).__name__!r}."
        )
