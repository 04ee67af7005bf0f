"""What the repository says already: sections of the README in pages, CONTRIBUTING and CHANGELOG as pages.

``<!-- readme: What it gains -->`` in a page becomes the text of that section of the README.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_for_the_site(text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put sections of the README where a page asks for them."""
    return re.sub(r"<!-- readme: (.+?) -->", lambda match: section(match[1]), markdown)


def section(heading: str) -> str:
    """The text of a section of the README, without its heading, with links as the site has them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise PluginError(f"The README has no section {heading!r}.")
    return _for_the_site(found[2].strip())


def _for_the_site(text: str) -> str:
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text.replace("](docs/", "](")
