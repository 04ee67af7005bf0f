"""FINN: its own estimates of an exported model, and proof that it computes the same at every stage.

FINN runs in an environment of its own, made by ``gfb finn install``; see :mod:`.environment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gfb_brevitas.on_demand import names_on_demand
from gfb_integrations._optional import require

require("platformdirs", extra="finn", purpose="Working with FINN")

from gfb_integrations.finn.estimate import estimate  # noqa: E402 - a function and its module

if TYPE_CHECKING:
    from gfb_integrations.finn.checking import check
    from gfb_integrations.finn.client import FinnProcess
    from gfb_integrations.finn.environment import finn_python, install_finn
    from gfb_integrations.finn.estimate import FinnEstimate, FinnNode
    from gfb_integrations.finn.failures import FinnBuildError, FinnError
    from gfb_integrations.finn.findings import CheckReport, Finding, FinnCheckError
    from gfb_integrations.finn.folding import folding_for
    from gfb_integrations.finn.mending import MendedModel, mend
    from gfb_integrations.finn.restriction import make_searchable, require_buildable
    from gfb_integrations.finn.runs import estimate_run, verify_run
    from gfb_integrations.finn.verification import FinnVerification, StageComparison, verify
else:
    __getattr__, __dir__ = names_on_demand(__name__)

__all__ = [
    "CheckReport",
    "Finding",
    "FinnBuildError",
    "FinnCheckError",
    "FinnError",
    "FinnEstimate",
    "FinnNode",
    "FinnProcess",
    "FinnVerification",
    "MendedModel",
    "StageComparison",
    "check",
    "estimate",
    "estimate_run",
    "finn_python",
    "folding_for",
    "install_finn",
    "make_searchable",
    "mend",
    "require_buildable",
    "verify",
    "verify_run",
]
