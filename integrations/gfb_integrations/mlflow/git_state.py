"""The state of the user's code in git."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TIMEOUT_S = 3.0
"""Longest time that git may take; the state of a larger repository is left out."""


def git_state(folder: Path | None = None) -> dict[str, str]:
    """Commit, branch and whether files differ from it; empty where there is no git or no repository.

    Args:
        folder: A folder of the repository; by default that of the running script.
    """
    folder = folder or project_folder()
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    state = {"commit": commit}
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    if branch and branch != "HEAD":
        state["branch"] = branch
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if changes is not None:
        state["dirty"] = str(bool(changes)).lower()
    return state


def project_folder() -> Path:
    """Folder of the running script; the current one in a notebook, and for installed programs such as gfb."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if not script:
        return Path.cwd()
    # Not resolved: the programs of an environment may be links.
    place = Path(script).absolute()
    installed = any(place.is_relative_to(prefix) for prefix in {sys.prefix, sys.base_prefix})
    return Path.cwd() if installed else place.resolve().parent


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "--no-optional-locks", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
