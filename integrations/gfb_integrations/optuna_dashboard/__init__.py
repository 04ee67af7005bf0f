"""optuna-dashboard: pictures, notes and files of a search beside the studies that it shows.

The studies themselves need none of this: ``gfb_brevitas.fit(storage=...)`` writes them, and optuna-dashboard
shows them as they are.
"""

from gfb_integrations._optional import require

require("optuna_dashboard", "plotly", extra="dashboard", purpose="Notes for optuna-dashboard")

from gfb_integrations.optuna_dashboard.callback import DashboardNotes  # noqa: E402

__all__ = ["DashboardNotes"]
