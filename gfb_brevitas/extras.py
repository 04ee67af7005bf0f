"""How optional dependencies are installed: from where this package was installed from, which is a clone."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_DISTRIBUTION = "gfb-brevitas"


def install_command(extras: str) -> str:
    """The command that installs extras, e.g. ``"export,report"``.

    It names the clone that the package was installed from (PEP 610), and where that is not known, or is not
    there any more, the clone that one is in.
    """
    source = _source()
    url, clone = str(source.get("url", "")), Path(unquote(urlsplit(str(source.get("url", ""))).path))
    if "vcs_info" in source:
        vcs = source["vcs_info"]
        return f"pip install '{_DISTRIBUTION}[{extras}] @ {vcs['vcs']}+{url}'"
    if url.startswith("file:") and (clone / "pyproject.toml").is_file():
        editable = "--editable " if source.get("dir_info", {}).get("editable") else ""
        return f"pip install {editable}'{clone}[{extras}]'"
    return f"pip install '.[{extras}]' (in a clone of {_DISTRIBUTION})"


def _source() -> dict[str, Any]:
    try:
        found = json.loads(distribution(_DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
