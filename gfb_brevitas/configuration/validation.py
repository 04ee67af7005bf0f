"""From a document to a checked configuration: errors in the user's words, with the line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ValidationError

from gfb_brevitas.configuration.document import Document
from gfb_brevitas.configuration.schema import (
    BoardBudget,
    CostBudget,
    Dashboard,
    FixRule,
    Mlflow,
    PaperBudgets,
    RangeRule,
    RunConfiguration,
    TieRule,
)
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search.config import SearchConfig, TrainingConfig

_IN_SECTIONS = {
    field.name: f"{section}.{field.name}"
    for section, kind in (("training", TrainingConfig), ("search", SearchConfig))
    for field in fields(kind)
}
_SECTIONS: dict[str, type[BaseModel]] = {
    "<fix>": FixRule,
    "<range>": RangeRule,
    "<tie>": TieRule,
    "<paper>": PaperBudgets,
    "<cost>": CostBudget,
    "<board>": BoardBudget,
    "mlflow": Mlflow,
    "dashboard": Dashboard,
}


def validated(document: Document) -> RunConfiguration:
    """Check a document against the schema.

    Raises:
        ConfigurationError: Naming every setting that is wrong and its line.
    """
    try:
        return RunConfiguration.model_validate(document.content)
    except ValidationError as error:
        # A section may be true or false instead, of which nothing is to be said where it is a section.
        entries = [
            e for e in error.errors() if e["loc"][-1:] != ("bool",) or not isinstance(e["input"], dict)
        ]
        found = dict.fromkeys(
            [*(_explained(document, entry) for entry in entries), *_unknown_settings(document)]
        )
        raise ConfigurationError("\n".join(found)) from None


def _unknown_settings(document: Document) -> Iterator[str]:
    """What is misspelt in the sections that are checked by their own classes."""
    for section, kind in (("search", SearchConfig), ("training", TrainingConfig)):
        given = document.content.get(section)
        names = [field.name for field in fields(kind)]
        for name in given if isinstance(given, dict) else ():
            if name not in names:
                yield f"{document.place((section, name))}: {_unknown(str(name), names)}"


def settings_of(kind: type[Any], values: dict[str, Any], document: Document, section: str) -> Any:
    """A dataclass of settings from a section of a document.

    Raises:
        ConfigurationError: Naming the setting that is wrong and its line.
    """
    names = [field.name for field in fields(kind)]
    for name in values:
        if name not in names:
            raise ConfigurationError(f"{document.place((section, name))}: {_unknown(name, names)}")
    try:
        return kind(**values)
    except ConfigurationError as error:
        named = next((name for name in values if f"`{name}`" in str(error)), None)
        place = document.place((section,) if named is None else (section, named))
        raise ConfigurationError(f"{place}: {error}") from error


def _explained(document: Document, error: Any) -> str:
    path = _written(document, error["loc"])
    where = document.place(path)
    name = ".".join(map(str, path)) or "a key"
    match error["type"]:
        case "extra_forbidden":
            elsewhere = _IN_SECTIONS.get(str(error["loc"][0])) if len(error["loc"]) == 1 else None
            return f"{where}: {_unknown(str(error['loc'][-1]), _names_beside(error['loc']), elsewhere)}"
        case "missing":
            return f"{where}: `{'.'.join(map(str, (*path, error['loc'][-1])))}` is missing."
        case "string_pattern_mismatch":
            return (
                f"{where}: `{name}` names user code as module:function, e.g. mynetwork:make; "
                f"got {error['input']!r:.60}."
            )
    return f"{where}: `{name}`: {error['msg'][:1].lower()}{error['msg'][1:]}; got {error['input']!r:.60}."


def _written(document: Document, location: Iterable[str | int]) -> tuple[str | int, ...]:
    """The part of an error's place that stands in the document: without the names of alternatives."""
    path: tuple[str | int, ...] = ()
    for key in location:
        if (*path, key) in document.lines:
            path = (*path, key)
    return path


def _names_beside(location: Iterable[str | int]) -> list[str]:
    section: type[BaseModel] = RunConfiguration
    for key in location:
        section = _SECTIONS.get(str(key), section)
    return list(section.model_fields)


def _unknown(name: str, known: list[str], elsewhere: str | None = None) -> str:
    close = difflib.get_close_matches(name, known, n=1) if elsewhere is None else [elsewhere]
    advice = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
    return f"there is no setting {name!r}. {advice}"
