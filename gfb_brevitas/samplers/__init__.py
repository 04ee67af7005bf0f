"""Optuna samplers: CMA-ES that uses every trial and survives the death of its process."""

from __future__ import annotations

from gfb_brevitas.samplers._cma import CmaSampler
from gfb_brevitas.samplers._state import CmaState
from gfb_brevitas.samplers._strategy import default_population_size

__all__ = ["CmaSampler", "CmaState", "default_population_size"]
