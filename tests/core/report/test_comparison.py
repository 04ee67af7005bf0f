from __future__ import annotations

import io
import json
from dataclasses import replace

import brevitas.nn as qnn
import pytest
import torch
from rich.console import Console
from torch import nn

from gfb_brevitas import BitAllocation, SearchableModel, make_searchable
from gfb_brevitas.report import Contender, comparison_table
from gfb_brevitas.report.comparison import comparison_of

IMAGES = torch.zeros(2, 1, 6, 6)


@pytest.fixture(scope="module")
def model() -> SearchableModel:
    """Weights 2x1x3x3 = 18 and 32x3 = 96; activations 36 and 32 per image."""
    return make_searchable(
        nn.Sequential(
            qnn.QuantIdentity(return_quant_tensor=True),
            qnn.QuantConv2d(1, 2, 3, bias=False),
            qnn.QuantReLU(return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(32, 3, bias=False),
        ),
        IMAGES,
    )


@pytest.fixture(scope="module")
def contender(model: SearchableModel) -> Contender:
    widths = {"0.act_quant": 8, "1.weight_quant": 4, "2.act_quant": 3, "4.weight_quant": 2}
    return Contender.of(
        "searched", model.space, BitAllocation(widths), accuracy=0.98765, epochs=12, seconds=34.5
    )


def printed(*rows: Contender, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_table(rows, "digits, 450 images"))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_costs_are_those_of_the_allocation(contender: Contender) -> None:
    assert contender.weight_bits == 18 * 4 + 96 * 2
    assert contender.mean_weight_bits == pytest.approx((18 * 4 + 96 * 2) / (18 + 96))
    assert contender.mean_activation_bits == pytest.approx((36 * 8 + 32 * 3) / (36 + 32))
    convolution, linear = 2 * 16 * 9, 32 * 3
    assert contender.bit_operations == convolution * 8 * 4 + linear * 3 * 2


def test_the_table_has_the_numbers_in_their_units(contender: Contender) -> None:
    large = replace(
        contender,
        name="large",
        weight_bits=80e6,
        mean_weight_bits=1.999,
        mean_activation_bits=4.0,
        bit_operations=1.5e9,
        accuracy=1.0,
        seconds=5400.4,
    )
    title, _, _, *rows = printed(contender, large)
    assert title == "digits, 450 images"
    assert [row.split() for row in rows] == [
        ["searched", "98.77%", "0.03", "kB", "2.32", "5.65", "0.01", "12", "34", "s"],
        ["large", "100.00%", "10000", "kB", "2.00", "4.00", "1500", "12", "5400", "s"],
    ]


def test_a_table_of_real_size_fits_into_80_columns_without_folding(contender: Contender) -> None:
    rows = [
        replace(contender, name=name, weight_bits=8000 * 812.25, bit_operations=812.25e6, seconds=912.0)
        for name in ("uniform 2", "uniform 10", "searched, budget 2")
    ]
    lines = printed(*rows)
    assert len(lines) == 3 + len(rows) and max(map(len, lines)) <= 80
    assert lines[1].split("  ")[0] == "model"
    for heading in ("accuracy", "weights", "W bits", "A bits", "Mbit ops", "epochs", "time"):
        assert heading in lines[1]


def test_only_a_long_name_is_folded(contender: Contender) -> None:
    lines = printed(replace(contender, name="a network with a name that is longer than any column " * 2))
    assert max(map(len, lines)) <= 80
    assert len(lines) > 5 and "98.77%" in lines[3] and "34 s" in lines[3]


def test_a_row_is_plain_data(contender: Contender) -> None:
    read = json.loads(json.dumps(contender.to_dict()))
    assert Contender(**read) == contender
    assert read["allocation"]["2.act_quant"] == 3


def test_another_metric_is_not_shown_as_a_share(contender: Contender) -> None:
    rows = [replace(contender, accuracy=-0.0332, measured="validation metric")]
    text = printed_rows(rows)
    assert "metric" in text and "-0.0332" in text and "%" not in text


def test_rows_of_a_summary_that_cannot_be_read_are_left_out(contender: Contender) -> None:
    rows = [contender.to_dict(), None, {"name": 3}, "row", {**contender.to_dict(), "accuracy": None}]
    found = comparison_of({"comparison": rows})
    assert found[0] == contender and len(found) == 2
    assert comparison_of({}) == comparison_of({"comparison": "none"}) == []


def printed_rows(rows: list[Contender]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_table(rows, "title"))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()
