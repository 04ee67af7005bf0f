"""The state of the user's code: with git, without, outside of a repository."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from gfb_integrations.mlflow.git_state import git_state, project_folder


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_repository(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert git_state(tmp_path) == {}, "there is no commit yet"
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "branch": "main", "dirty": "false"}
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path)["dirty"] == "true"
    git(tmp_path, "checkout", "--detach")
    assert "branch" not in git_state(tmp_path)


def test_no_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {}


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {}


def test_the_code_of_an_installed_program_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, own = Path(sys.prefix) / "bin" / "gfb", tmp_path / "code" / "search.py"
    for script, folder in ((program, tmp_path), (own, own.parent), (None, tmp_path)):
        main = types.ModuleType("__main__")
        if script is not None:
            main.__file__ = str(script)
        monkeypatch.setitem(sys.modules, "__main__", main)
        assert project_folder() == folder
