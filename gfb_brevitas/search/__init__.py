"""The search: gradient-free steps, gradient-based epochs, and their alternation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gfb_brevitas.on_demand import names_on_demand

if TYPE_CHECKING:
    from gfb_brevitas.search.alternation import fit
    from gfb_brevitas.search.callbacks import AnyCallback, Callback, EndRecord, StartRecord
    from gfb_brevitas.search.config import SearchConfig, TrainingConfig
    from gfb_brevitas.search.gradient_free import GradientFreeStep, StepOutcome
    from gfb_brevitas.search.history import (
        CalibrationRecord,
        Candidate,
        EpochRecord,
        GenerationRecord,
        History,
        Record,
        RoundRecord,
        StepRecord,
    )
    from gfb_brevitas.search.layer_costs import RecordedLayerCost, RecordedLayerCosts
    from gfb_brevitas.search.loading import load_best
    from gfb_brevitas.search.presets import PRESETS, Preset, preset
    from gfb_brevitas.search.recorded_run import EvaluatedCandidates, RecordedBudget, RecordedRun
    from gfb_brevitas.search.result import SearchResult
    from gfb_brevitas.search.run_status import RunStatus
    from gfb_brevitas.search.seeds import RecordedSeeds, SeedResults, over_seeds
    from gfb_brevitas.search.training import EpochOutcome
    from gfb_brevitas.search.training_loop import TrainingEpoch, TrainingLoop
else:
    __getattr__, __dir__ = names_on_demand(__name__)

__all__ = [
    "PRESETS",
    "AnyCallback",
    "CalibrationRecord",
    "Callback",
    "Candidate",
    "EndRecord",
    "EpochOutcome",
    "EpochRecord",
    "EvaluatedCandidates",
    "GenerationRecord",
    "GradientFreeStep",
    "History",
    "Preset",
    "Record",
    "RecordedBudget",
    "RecordedLayerCost",
    "RecordedLayerCosts",
    "RecordedRun",
    "RecordedSeeds",
    "RoundRecord",
    "RunStatus",
    "SearchConfig",
    "SearchResult",
    "SeedResults",
    "StartRecord",
    "StepOutcome",
    "StepRecord",
    "TrainingConfig",
    "TrainingEpoch",
    "TrainingLoop",
    "fit",
    "load_best",
    "over_seeds",
    "preset",
]
