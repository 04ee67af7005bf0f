"""How much of the loss each quantizer decides, and the allocation that this suggests [ours]."""

from __future__ import annotations

from gfb_brevitas.sensitivity.allocating import Allocator, allocate
from gfb_brevitas.sensitivity.estimate import SensitivityTable, estimate_sensitivity

__all__ = ["Allocator", "SensitivityTable", "allocate", "estimate_sensitivity"]
