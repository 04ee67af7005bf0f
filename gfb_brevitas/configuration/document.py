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
_POSITION = re.compile(r"[0-9]{1,9}")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which, as in YAML 1.2, 1e-3 and 010 are decimal numbers, and yes, off and 1:30 are words.

    Without aliases, by which a short file can hold very much.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, which is not an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=mark)
        return super().compose_node(parent, index)


_NOT_OF_1_2 = (":bool", ":int", ":float", ":timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_NOT_OF_1_2)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|false)$", re.IGNORECASE), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"([-+]?\d[\d_]*|0x[0-9a-fA-F]+|0o[0-7]+)$", re.ASCII),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN))$"),
    list("-+0123456789."),
)


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0 if text[:2] in ("0x", "0o") else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file's content, and where everything in it stands.

    Attributes:
        path: The file.
        content: Plain data.
        lines: The line, from 1, of every key and list item, by the path of keys and positions to it; 0 for
            what stands on the command line.
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
        keys = tuple(int(key) if _POSITION.fullmatch(key) else key for key in name.split("."))
        if not equals or not all(str(key) for key in keys):
            raise ConfigurationError(
                f"Settings are changed as name=value, e.g. search.rounds=3; got {assignment!r:.200}."
            )
        try:
            value, inside = _read(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{assignment!r:.200}: what stands behind = cannot be read: {_reason(error)}."
            ) from error
        content = _replaced(self.content, keys, value, assignment)
        lines = {path: line for path, line in self.lines.items() if path[: len(keys)] != keys}
        lines |= {(*keys, *path): 0 for path in ((), *inside)}
        return Document(path=self.path, content=content, lines=lines)


def _read(text: str) -> tuple[Any, dict[Path_, int]]:
    """What YAML says, and the lines of everything in it."""
    root = yaml.compose(text, Loader=_Loader)
    lines: dict[Path_, int] = {}
    if root is not None:
        _note_lines(root, (), lines)
    return yaml.load(text, Loader=_Loader), lines


def _reason(error: Exception) -> str:
    """What is wrong with a text, in one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, yaml.MarkedYAMLError) and (error.problem or error.context):
        return str(error.problem or error.context)
    return str(error).split("\n")[0].rstrip(".")


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigurationError: If it cannot be read, is not YAML, repeats a key or is not a mapping; with the
            line.
    """
    try:
        content, lines = _read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        mark = isinstance(error, yaml.MarkedYAMLError) and (error.problem_mark or error.context_mark)
        if mark:
            raise ConfigurationError(f"{path}, line {mark.line + 1}: {_reason(error)}.") from error
        raise ConfigurationError(f"{str(path)!r} cannot be read: {_reason(error)}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{str(path)!r} must hold settings, `name: value`; it holds {content!r:.80}."
        )
    return Document(path=path, content=content, lines=lines)


def _note_lines(node: yaml.Node, at: Path_, lines: dict[Path_, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*at, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given again, first on line {lines[place]}",
                    problem_mark=key.start_mark,
                )
            lines[place] = line
            _note_lines(value, place, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*at, position)] = item.start_mark.line + 1
            _note_lines(item, (*at, position), lines)


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
