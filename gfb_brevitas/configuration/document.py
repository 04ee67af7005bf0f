"""YAML whose every value knows its line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gfb_brevitas.errors import ConfigurationError

Path_ = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, and yes, no, on and off are words (as in YAML 1.2).

    Without aliases, by which a short file can hold very much.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, which is not an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|false)$", re.IGNORECASE), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN))$"),
    list("-+0123456789."),
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file's content, and where everything in it stands.

    Attributes:
        path: The file.
        content: Plain data.
        lines: The line, from 1, of every key and list item, by the path of keys and positions to it.
    """

    path: Path
    content: dict[str, Any]
    lines: Mapping[Path_, int]

    def place(self, path: Sequence[str | int]) -> str:
        """Where something stands, for an error: the line of it, or of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            line = self.lines.get(tuple(path[:length]))
            if line == 0:
                return f"{'.'.join(map(str, path[:length]))} on the command line"
            if line is not None:
                return f"{self.path}, line {line}"
        return str(self.path)

    def with_override(self, assignment: str) -> Document:
        """With one value changed, ``search.rounds=3``; what stands to the right is YAML.

        Raises:
            ConfigurationError: If it is not such an assignment.
        """
        name, equals, text = assignment.partition("=")
        keys = tuple(int(key) if key.isdigit() else key for key in name.split("."))
        if not equals or not all(str(key) for key in keys):
            raise ConfigurationError(
                f"Settings are changed as name=value, e.g. search.rounds=3; got {assignment!r}."
            )
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ConfigurationError(
                f"{assignment!r}: what stands behind = is not YAML ({error})."
            ) from error
        content = _replaced(self.content, keys, value, assignment)
        return Document(path=self.path, content=content, lines={**self.lines, keys: 0})


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigurationError: If it cannot be read, is not YAML, repeats a key or is not a mapping; with the
            line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=_Loader)
        lines: dict[Path_, int] = {}
        if root is not None:
            _note_lines(root, (), lines, path)
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = str(path) if mark is None else f"{path}, line {mark.line + 1}"
        raise ConfigurationError(f"{place}: {error.problem or error.context}.") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split("\n")[0]
        raise ConfigurationError(f"{str(path)!r} cannot be read: {reason}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{str(path)!r} must hold settings, `name: value`; it holds {content!r:.80}."
        )
    return Document(path=path, content=content, lines=lines)


def _note_lines(node: yaml.Node, at: Path_, lines: dict[Path_, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*at, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                raise ConfigurationError(
                    f"{path}, line {line}: {key.value!r} is given again, first on line {lines[place]}."
                )
            lines[place] = line
            _note_lines(value, place, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*at, position)] = item.start_mark.line + 1
            _note_lines(item, (*at, position), lines, path)


def _replaced(content: Any, keys: Path_, value: Any, assignment: str) -> Any:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(content, list) and isinstance(key, int):
        if key >= len(content):
            raise ConfigurationError(f"{assignment!r}: the list has {len(content)} items, counted from 0.")
        return [
            _replaced(item, rest, value, assignment) if i == key else item for i, item in enumerate(content)
        ]
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{assignment!r}: {key!r} is inside of {content!r:.60}, which has no settings."
        )
    name = str(key)
    return {**content, name: _replaced(content.get(name), rest, value, assignment)}
