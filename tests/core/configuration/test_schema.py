"""The schema of configuration files: every setting is described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gfb_brevitas.configuration.descriptions import as_markdown, attribute_descriptions
from gfb_brevitas.configuration.schema import RunConfiguration
from gfb_brevitas.search import SearchConfig, TrainingConfig
from tests.core.test_cli import gfb as command


def properties(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of a schema, with its place."""
    if isinstance(schema, dict):
        for name, about in schema.get("properties", {}).items():
            yield f"{place}.{name}", about
        for key, inner in schema.items():
            yield from properties(inner, f"{place}.{key}")
    elif isinstance(schema, list):
        for inner in schema:
            yield from properties(inner, place)


def test_every_setting_is_described() -> None:
    result = command("schema")
    assert result.exit_code == 0
    found = dict(properties(json.loads(result.stdout)))
    assert len(found) > 70
    assert not [place for place, about in found.items() if not about.get("description")]
    assert found[".properties.search.rounds"]["default"] == 5
    assert not [text for text in (about["description"] for about in found.values()) if ":class:" in text]


@pytest.mark.parametrize("kind", [SearchConfig, TrainingConfig])
def test_settings_of_dataclasses_have_their_defaults(kind: type) -> None:
    section = {SearchConfig: "search", TrainingConfig: "training"}[kind]
    about = RunConfiguration.model_json_schema()["properties"][section]
    about = about if "properties" in about else about["anyOf"][0]
    assert list(about["properties"]) == list(attribute_descriptions(kind))
    assert all("default" in setting for setting in about["properties"].values())


def test_a_class_without_descriptions_has_none() -> None:
    assert attribute_descriptions(int) == {}
    assert as_markdown("``None``: see :class:`~gfb.X` [ours].") == "`None`: see `gfb.X`."
