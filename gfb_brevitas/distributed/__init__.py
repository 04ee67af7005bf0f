"""One run in several processes: its work is shared out, its result is that of one process."""

from __future__ import annotations

from gfb_brevitas.distributed.evaluator import SharedEvaluator, shared
from gfb_brevitas.distributed.gradients import Gradients, SharedGradients, make_gradients
from gfb_brevitas.distributed.joining import in_all_processes, is_first_process, joined_world
from gfb_brevitas.distributed.world import World, current_world

__all__ = [
    "Gradients",
    "SharedEvaluator",
    "SharedGradients",
    "World",
    "current_world",
    "in_all_processes",
    "is_first_process",
    "joined_world",
    "make_gradients",
    "shared",
]
