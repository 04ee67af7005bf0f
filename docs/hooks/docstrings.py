"""Docstrings as Markdown: the few roles of reStructuredText in them become links."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(?P<short>~?)(?P<name>[^`]+)`")

_LITERAL = re.compile(r"^(?P<head>.*)::\n\n(?P<code>(?: {4}.*\n|\n)+)", re.MULTILINE)


class MarkdownDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is None:
            return

        def link(match: re.Match[str]) -> str:
            name = match["name"].removesuffix("()")
            shown = name.rpartition(".")[2] if match["short"] else name.lstrip(".")
            return f'<autoref optional identifier="{_full_name(name, obj)}"><code>{shown}</code></autoref>'

        text = _LITERAL.sub(_fenced, obj.docstring.value)
        text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # what Griffe calls it
        obj.docstring.value = _ROLE.sub(link, text)


def _fenced(match: re.Match[str]) -> str:
    head = "**Example**" if match["head"] == "Example" else f"{match['head']}:"
    return f"{head}\n\n```python\n{textwrap.dedent(match['code']).strip()}\n```\n\n"


def _full_name(name: str, obj: griffe.Object) -> str:
    if name.startswith("."):
        return f"{obj.module.path}{name}"
    try:
        return obj.resolve(name)
    except griffe.NameResolutionError:
        return name
