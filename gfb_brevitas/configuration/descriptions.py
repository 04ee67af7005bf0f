"""What settings mean, from the docstrings of the classes that hold them."""

from __future__ import annotations

import inspect
import re


def summary(kind: type) -> str:
    """The first paragraph of a class' docstring, in plain words."""
    return _in_plain_words(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0])


def descriptions(kind: type) -> dict[str, str]:
    """What each attribute is, in plain words, from a docstring in Google's style."""
    return {name: _in_plain_words(text) for name, text in documented_attributes(kind).items()}


def documented_attributes(kind: type) -> dict[str, str]:
    """The section ``Attributes`` of a class' docstring as it is written, each in one line."""
    text = inspect.cleandoc(kind.__doc__ or "")
    found = re.search(r"^Attributes:\n((?: {4}.*\n?|\n)+)", text, flags=re.MULTILINE)
    if found is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", found[1], flags=re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in entries}


def _in_plain_words(text: str) -> str:
    text = re.sub(r":\w+:`~?([\w.]+)`", r"\1", " ".join(text.split()))
    return text.replace("``", "").replace(" [ours]", "")
