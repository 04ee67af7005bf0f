"""Every Python block of the documentation runs, in the order of its file."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "docs/guide.md", "docs/method.md", "docs/finn.md", "docs/training.md"]
NEEDS_FINN = "<!-- needs FINN -->\n\n"


def python_blocks(text: str) -> list[str]:
    if not os.environ.get("GFB_FINN_PYTHON"):
        text = re.sub(f"{NEEDS_FINN}```python\n.*?```", "", text, flags=re.DOTALL)
    blocks = re.findall(r"^([ ]*)```python\n(.*?)^[ ]*```", text, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in blocks]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_blocks_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": document}
    blocks = python_blocks((ROOT / document).read_text(encoding="utf-8"))
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{document}, block {number}", "exec"), names)


@pytest.mark.parametrize("document", [*DOCUMENTS, "CONTRIBUTING.md", "docs/results.md"])
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"
