"""Where a run comes from: the script, the user, the state of the code, the packages, the run around it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from getpass import getuser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gfb_integrations.mlflow.spool import absolute

_PACKAGES = ("gfb-brevitas", "torch", "brevitas", "optuna", "numpy", "mlflow")


def status_after(error: BaseException | None) -> str:
    """What became of a search that an error ended."""
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def active_run_id(uri: str) -> str | None:
    """The user's own run, if it is in the same store."""
    import mlflow

    active = mlflow.active_run()
    return (
        str(active.info.run_id) if active is not None and absolute(mlflow.get_tracking_uri()) == uri else None
    )


def source_tags(run_folder: Path | None, git: Mapping[str, str]) -> dict[str, str]:
    """The tags by which MLflow shows where a run comes from."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": sys.argv[0] or "python"}
    with suppress(OSError, KeyError, ImportError):  # a user without a name
        tags["mlflow.user"] = getuser()
    if git:
        tags["mlflow.source.git.commit"] = git["commit"]
        tags |= {f"gfb_brevitas.git.{name}": value for name, value in git.items() if name != "commit"}
        if "branch" in git:
            tags["mlflow.source.git.branch"] = git["branch"]
    if run_folder is not None:
        tags["gfb_brevitas.run_folder"] = str(run_folder.resolve())
    return tags


def package_versions() -> dict[str, str]:
    """Versions of the packages that a run depends on, as parameters."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[f"versions.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return versions
