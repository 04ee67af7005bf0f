"""What settings choose from by name; without PyTorch, so that settings can be described without it."""

from __future__ import annotations

from typing import Literal, get_args

BatchNormStatistics = Literal["running", "batch"]
BATCHNORM_STATISTICS: tuple[str, ...] = get_args(BatchNormStatistics)
SuperBatchKind = Literal["moving", "fixed", "single"]
SUPER_BATCH_KINDS: tuple[str, ...] = get_args(SuperBatchKind)
ClippingKind = Literal["constant", "linear", "per_bit"]
