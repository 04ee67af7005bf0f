"""Learning rates over the whole run."""

from __future__ import annotations

import math

from gfb_brevitas.search.config import TrainingConfig


def learning_rate_factor(config: TrainingConfig, epoch: int, epochs: int) -> float:
    """Factor of the learning rates in an epoch.

    Args:
        config: The schedule and the warm-up.
        epoch: Epoch of the run, from 0, pretraining included.
        epochs: All epochs of the run.
    """
    progress = epoch / max(epochs, 1)
    factor = 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * progress))
    elif callable(config.schedule):
        factor = float(config.schedule(progress))
    return factor * min(1.0, (epoch + 1) / (config.warmup_epochs + 1))
