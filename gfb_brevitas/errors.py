"""The one family of exceptions this package raises on purpose.

Every message states the rule, the value that was received and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class GfbError(Exception):
    """Base class of every error raised on purpose by ``gfb_brevitas`` and ``gfb_integrations``."""


class ConfigurationError(GfbError, ValueError):
    """A setting is outside its rule, or two settings contradict each other."""


class NothingSearchableError(GfbError):
    """The model holds no quantizer whose bit width can be searched."""


class UntraceableModelError(GfbError):
    """The model could not be run on the example inputs, or not be traced."""


class AllocationError(GfbError, ValueError):
    """A bit allocation does not fit the model or search space, or its file is not readable."""


class InfeasibleBudgetError(GfbError, ValueError):
    """No allocation in the search space satisfies the budgets."""


class CalibrationError(GfbError):
    """Clipping values cannot be started from the data that was given."""


class EmptyDataError(GfbError, ValueError):
    """An iterable of batches yielded nothing."""


class BatchError(GfbError):
    """A batch could not be loaded, or the loss failed on it; the error itself is the ``__cause__``."""


class NonFiniteLossError(GfbError):
    """The loss became NaN or infinite where the run cannot go on without it."""


class LossAtChanceError(GfbError):
    """Training has undone what a model knew, and the run was to stop then."""


class CheckpointError(GfbError):
    """A checkpoint or run folder is missing, damaged, or belongs to another run."""


class DistributedError(GfbError):
    """The processes of a run lost each other, do not do the same, or one of them failed."""


class ExportError(GfbError):
    """The model cannot be exported, or the exported file computes something else."""


class MissingExtraError(GfbError, ImportError):
    """An optional dependency is missing; the message holds the exact install command."""


def unknown_name(what: str, name: object, known: Iterable[str], way_out: str = "") -> str:
    """The message for a name that is none of the known ones: what there is, and what may have been meant."""
    names = list(known)
    close = get_close_matches(str(name), names, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no {what} {name!r}.{meant} There are: {', '.join(names)}.{way_out}"
