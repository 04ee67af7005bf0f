"""The command that installs an extra: it works where it is typed, for every way of installing the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gfb_brevitas.extras import install_command


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an installer writes about the package (PEP 610), found before that of the real one."""
    folder = tmp_path / "site" / "gfb_brevitas-9.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: gfb-brevitas\nVersion: 9\n")
    monkeypatch.syspath_prepend(folder.parent)
    return folder / "direct_url.json"


def clone_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


@pytest.mark.parametrize(("details", "option"), [({}, ""), ({"editable": True}, "--editable ")])
def test_a_clone_is_named(installed: Path, tmp_path: Path, details: dict[str, bool], option: str) -> None:
    clone = clone_in(tmp_path / "my clone")
    installed.write_text(json.dumps({"url": clone.as_uri(), "dir_info": details}))
    assert install_command("export,report") == f"pip install {option}'{clone}[export,report]'"


def test_a_repository_is_named(installed: Path) -> None:
    url = "https://example.org/gfb.git"
    installed.write_text(json.dumps({"url": url, "vcs_info": {"vcs": "git", "commit_id": "1"}}))
    assert install_command("mlflow") == f"pip install 'gfb-brevitas[mlflow] @ git+{url}'"


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"url": "file:///nowhere", "dir_info": {}}'])
def test_where_the_clone_is_not_known(installed: Path, content: str | None) -> None:
    if content is not None:
        installed.write_text(content)
    assert install_command("export") == "pip install '.[export]' (in a clone of gfb-brevitas)"
