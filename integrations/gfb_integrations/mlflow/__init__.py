"""MLflow: a search followed live, in a store on disk or on a server.

:class:`MlflowTracking` is a callback. It writes what happens to a file; a process of its own, the courier,
delivers it in order and once, so that a server that is slow or away never holds the search up.
``pip install '.[mlflow]'`` installs what is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gfb_integrations.mlflow.tracking import MlflowTracking

__all__ = ["MlflowTracking"]


def __getattr__(name: str) -> Any:
    # On first use: the courier imports this package too, and does without PyTorch.
    if name == "MlflowTracking":
        from gfb_integrations.mlflow.tracking import MlflowTracking

        return MlflowTracking
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
