"""What settings do, from the docstrings of the classes that hold them."""

from __future__ import annotations

import inspect
import re


def attribute_descriptions(kind: type) -> dict[str, str]:
    """What stands under ``Attributes:`` in a docstring in Google's style, by attribute, as Markdown.

    Example:
        >>> class Settings:
        ...     '''Some.
        ...
        ...     Attributes:
        ...         bits: Width of :class:`int`; ``None`` is
        ...             any [ours].
        ...     '''
        >>> attribute_descriptions(Settings)
        {'bits': 'Width of `int`; `None` is any.'}
    """
    text = inspect.cleandoc(kind.__doc__ or "")
    found = re.search(r"^Attributes:\n((?: {4}.*(?:\n|\Z)|\n)+)", text, flags=re.MULTILINE)
    if found is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", found[1], flags=re.MULTILINE)
    return {name: as_markdown(" ".join(description.split())) for name, description in entries}


def as_markdown(text: str) -> str:
    """A docstring's text with names as code, whatever their role, and without marks for developers."""
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)
    return text.replace("``", "`").replace(" [ours]", "")
