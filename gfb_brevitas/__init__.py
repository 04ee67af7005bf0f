"""gfb_brevitas: the best bit width for every layer of a Brevitas model, under hard budgets.

The method is GradFreeBits (Bodner, Ben-Shalom, Treister, Sensors 2022, 22(24), 9772,
doi:10.3390/s22249772): CMA-ES moves the bit widths, quantization-aware training moves the weights, in
turn.

Example:
    >>> import gfb_brevitas as gfb
    >>> searchable = gfb.make_searchable(model, example_inputs)  # doctest: +SKIP
    >>> result = gfb.fit(  # doctest: +SKIP
    ...     searchable, loss=loss, train_batches=loader, budgets=gfb.paper_budgets(3)
    ... )
    >>> result.model, result.allocation  # doctest: +SKIP
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from gfb_brevitas.on_demand import names_on_demand

if TYPE_CHECKING:
    from gfb_brevitas import dataflow
    from gfb_brevitas.adapters import SearchableModel, apply_allocation, make_searchable, quantize_float_model
    from gfb_brevitas.allocation import BitAllocation
    from gfb_brevitas.constraints import Budget, Constraints, paper_budgets
    from gfb_brevitas.costs import register_operator_cost
    from gfb_brevitas.errors import (
        AllocationError,
        BatchError,
        CalibrationError,
        CheckpointError,
        ConfigurationError,
        DistributedError,
        EmptyDataError,
        ExportError,
        GfbError,
        InfeasibleBudgetError,
        LossAtChanceError,
        MissingExtraError,
        NonFiniteLossError,
        NothingSearchableError,
        UntraceableModelError,
    )
    from gfb_brevitas.profile import FloatLayer, ModelProfile, QuantizerInfo
    from gfb_brevitas.rules import Fix, Range, Tie
    from gfb_brevitas.samplers import CmaSampler
    from gfb_brevitas.search import (
        Callback,
        EpochOutcome,
        RecordedRun,
        SearchConfig,
        SearchResult,
        TrainingConfig,
        TrainingEpoch,
        TrainingLoop,
        fit,
        load_best,
        preset,
    )
    from gfb_brevitas.space import SearchSpace
else:
    __getattr__, __dir__ = names_on_demand(__name__)

__version__ = version("gfb-brevitas")

__all__ = [
    "AllocationError",
    "BatchError",
    "BitAllocation",
    "Budget",
    "CalibrationError",
    "Callback",
    "CheckpointError",
    "CmaSampler",
    "ConfigurationError",
    "Constraints",
    "DistributedError",
    "EmptyDataError",
    "EpochOutcome",
    "ExportError",
    "Fix",
    "FloatLayer",
    "GfbError",
    "InfeasibleBudgetError",
    "LossAtChanceError",
    "MissingExtraError",
    "ModelProfile",
    "NonFiniteLossError",
    "NothingSearchableError",
    "QuantizerInfo",
    "Range",
    "RecordedRun",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "SearchableModel",
    "Tie",
    "TrainingConfig",
    "TrainingEpoch",
    "TrainingLoop",
    "UntraceableModelError",
    "__version__",
    "apply_allocation",
    "dataflow",
    "fit",
    "load_best",
    "make_searchable",
    "paper_budgets",
    "preset",
    "quantize_float_model",
    "register_operator_cost",
]
