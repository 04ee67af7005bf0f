"""A surrogate of the loss: which candidates are worth an evaluation [ours]."""

from __future__ import annotations

from gfb_brevitas.surrogate.loss_model import LossModel
from gfb_brevitas.surrogate.proposals import Proposals

__all__ = ["LossModel", "Proposals"]
