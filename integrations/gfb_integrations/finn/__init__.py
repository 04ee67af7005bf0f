"""FINN: its own estimates of an exported model, and proof that it computes the same at every stage.

FINN runs in an environment of its own, made by ``gfb finn install``; see :mod:`.environment`.
"""

from gfb_integrations._optional import require

require("platformdirs", extra="finn", purpose="Working with FINN")

from gfb_integrations.finn.check import check  # noqa: E402
from gfb_integrations.finn.client import FinnProcess  # noqa: E402
from gfb_integrations.finn.environment import finn_python, install_finn  # noqa: E402
from gfb_integrations.finn.estimate import FinnEstimate, FinnNode, estimate  # noqa: E402
from gfb_integrations.finn.failures import FinnBuildError, FinnError  # noqa: E402
from gfb_integrations.finn.findings import CheckReport, Finding, FinnCheckError  # noqa: E402
from gfb_integrations.finn.folding import folding_for  # noqa: E402
from gfb_integrations.finn.mending import MendedModel, mend  # noqa: E402
from gfb_integrations.finn.restriction import make_searchable, require_buildable  # noqa: E402
from gfb_integrations.finn.runs import estimate_run, verify_run  # noqa: E402
from gfb_integrations.finn.verification import FinnVerification, StageComparison, verify  # noqa: E402

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
