"""Means of widths over quantizers, shared by the two mean costs."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from gfb_brevitas.costs.protocol import BoundCost
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile, QuantizerKind
from gfb_brevitas.space import Bits, Vector

Weighting = Literal["elements", "quantizers"]


_INSTEAD: dict[QuantizerKind, str] = {"activation": "WeightSize()", "weight": "MeanActivationBits()"}


def check_weighting(weighting: str) -> None:
    """Raise ConfigurationError unless ``weighting`` is one of :data:`Weighting`."""
    if weighting not in get_args(Weighting):
        raise ConfigurationError(f'`weighting` must be "elements" or "quantizers"; got {weighting!r}.')


def mean_bits(profile: ModelProfile, kind: QuantizerKind, weighting: Weighting) -> BoundCost:
    """The mean width of all quantizers of ``kind``, each counted once or by its elements."""
    columns = profile.columns(kind)
    counts = profile.elements()[columns] if weighting == "elements" else np.ones(len(columns))
    total = float(counts.sum())
    if total <= 0:
        raise ConfigurationError(
            f"The mean width of {kind} quantizers needs at least one with elements; "
            f"the model has {len(columns)} searchable {kind} quantizers with {total:.0f} {weighting} in all. "
            f"Leave this budget out and state another, such as Budget(cost={_INSTEAD[kind]}, ...)."
        )

    def mean(bits: Bits) -> Vector:
        # The sum is of whole numbers and so exact: a candidate's mean does not depend on its neighbours.
        average: Vector = (bits[:, columns].astype(np.float64) @ counts) / total
        return average

    return mean
