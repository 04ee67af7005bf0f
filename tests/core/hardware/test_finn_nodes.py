"""FINN's own numbers of single nodes, recorded by ``record_finn_nodes.py``, against the formulas."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gfb_integrations.finn import FinnNode
from gfb_integrations.finn.formulas import price

NODES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("finn_nodes.json").read_text(encoding="utf-8")
)
KINDS = sorted({entry["kind"] for entry in NODES})


def _node(entry: dict[str, Any]) -> FinnNode:
    numbers = {name: entry[name] for name in ("cycles", "lut", "bram_18k", "uram", "dsp")}
    return FinnNode(
        name=entry["kind"],
        kind=entry["kind"],
        inputs=(),
        attributes=entry["attributes"],
        input_types=(),
        output_types=(),
        input_shapes=(),
        **numbers,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_recorded_node_has_finns_numbers(kind: str) -> None:
    differing = []
    for entry in NODES:
        if entry["kind"] == kind:
            node = _node(entry)
            found = price(node, entry["part"])
            if found.differs_from(node):
                differing.append((entry, found))
    assert not differing


def test_the_record_holds_what_makes_a_difference() -> None:
    products = [entry for entry in NODES if entry["kind"].startswith(("MVAU", "VVAU"))]
    assert all(Counter(entry["kind"] for entry in NODES)[kind] >= 50 for kind in KINDS)
    styles = Counter(entry["attributes"]["ram_style"] for entry in products)
    assert set(styles) == {"auto", "block", "distributed", "ultra"}
    assert {"MVAU_hls", "MVAU_rtl", "VVAU_hls", "VVAU_rtl", "Thresholding_rtl", "Pool_hls"} <= set(KINDS)
    assert {entry["attributes"]["noActivation"] for entry in products} == {0, 1}
    assert any(entry["attributes"].get("resType") == "dsp" for entry in products)
    assert any(entry["attributes"].get("parallel_window") for entry in NODES)
    assert len({entry["part"] for entry in NODES}) == 3
    for resource in ("lut", "bram_18k", "uram", "dsp"):
        assert any(entry[resource] for entry in NODES), resource
