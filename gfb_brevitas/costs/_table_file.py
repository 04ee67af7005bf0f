"""The JSON file of a cost table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gfb_brevitas.costs._layer_widths import WidthPair
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.files import CHECKSUM, refuse_duplicate_keys, sealed, unsealed_if_sealed

FORMAT = "gfb_brevitas.cost_table"
VERSION = 1

_KEYS = ("format", "version", "name", "unit", "layers", "constant")
_PAIR = re.compile(r"([0-9]{1,2}) *, *([0-9]{1,2})")


@dataclass(frozen=True, kw_only=True)
class TableDocument:
    """What a table file says; values are as read, and checked by the cost that is made of it."""

    name: Any
    unit: Any
    layers: dict[str, dict[WidthPair, Any]]
    constant: Any


def table_text(
    name: str, unit: str, layers: Mapping[str, Mapping[WidthPair, float | None]], constant: float
) -> str:
    """The text of a table file; a cost of None is written as ``null``. One without these has a checksum."""
    entries = {
        layer: {f"{weight},{activation}": cost for (weight, activation), cost in pairs.items()}
        for layer, pairs in layers.items()
    }
    values = (FORMAT, VERSION, name, unit, entries, constant)
    document = dict(zip(_KEYS, values, strict=True))
    # One that is still to be filled in changes.
    complete = all(cost is not None for pairs in layers.values() for cost in pairs.values())
    return json.dumps(sealed(document) if complete else document, indent=2) + "\n"


def read_table(text: str) -> TableDocument:
    """Read what :func:`table_text` wrote.

    Raises:
        ConfigurationError: If the text is not such a document, of another version, has an entry that is
            not filled in, or its checksum, if it has one, is of another content.
    """
    try:
        document: Any = json.loads(text, object_pairs_hook=refuse_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"Not a cost table: it is not valid JSON ({error}).") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigurationError(f'Not a cost table: it must be a JSON object with "format": "{FORMAT}".')
    if document.get("version") != VERSION:
        raise ConfigurationError(
            f"This release reads cost tables of version {VERSION}; got {document.get('version')!r}."
        )
    unknown = sorted(document.keys() - {*_KEYS, CHECKSUM})
    if unknown:
        raise ConfigurationError(
            f"A cost table has the keys {', '.join(_KEYS)}; got {', '.join(unknown)} too."
        )
    try:
        document = unsealed_if_sealed(document)
    except ValueError as error:
        raise ConfigurationError(f"The cost table is damaged: {error}.") from error
    return TableDocument(
        name=document.get("name"),
        unit=document.get("unit"),
        layers=_layers(document.get("layers")),
        constant=document.get("constant", 0.0),
    )


def _layers(layers: Any) -> dict[str, dict[WidthPair, Any]]:
    if not isinstance(layers, dict):
        raise ConfigurationError(f'"layers" must map layer names to their entries; got {layers!r}.')
    return {layer: _entries(layer, entries) for layer, entries in layers.items()}


def _entries(layer: str, entries: Any) -> dict[WidthPair, Any]:
    if not isinstance(entries, dict):
        raise ConfigurationError(
            f'Layer {layer!r} must map width pairs such as "4,8" to costs; got {entries!r}.'
        )
    found: dict[WidthPair, Any] = {}
    for key, cost in entries.items():
        match = _PAIR.fullmatch(key)
        if match is None:
            raise ConfigurationError(
                f'A width pair is "weight bits,activation bits", such as "4,8"; got {key!r} for {layer!r}.'
            )
        pair = int(match[1]), int(match[2])
        if cost is None:
            raise ConfigurationError(f"The entry of {layer!r} at {key!r} is null; fill in its cost.")
        if pair in found:
            raise ConfigurationError(f"Layer {layer!r} has two entries for {pair[0]},{pair[1]}; keep one.")
        found[pair] = cost
    return found
