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
from gfb_brevitas.constraints import BudgetUse
from gfb_brevitas.report import Contender, comparison_table, verdict
from gfb_brevitas.report.comparison import binding_budget, comparison_of

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
        ["searched", "98.77%", "33B", "9,792", "2.32", "5.65", "12", "34", "s"],
        ["large", "100.00%", "10MB", "1.5G", "2.00", "4.00", "12", "5400", "s"],
    ]


def test_a_table_of_real_size_fits_into_80_columns_without_folding(contender: Contender) -> None:
    rows = [
        replace(contender, name=name, weight_bits=8000 * 812.25, bit_operations=812.25e6, seconds=912.0)
        for name in ("uniform 2", "uniform 10", "searched, budget 2")
    ]
    lines = printed(*rows)
    assert len(lines) == 3 + len(rows) and max(map(len, lines)) <= 80
    assert lines[1].split("  ")[0] == "model"
    for heading in ("accuracy", "weights", "W bits", "A bits", "bit ops", "epochs", "time"):
        assert heading in lines[1]


def test_only_a_long_name_is_folded(contender: Contender) -> None:
    name = "a network with a name that is longer than any column " * 2
    lines = printed(replace(contender, name=name))
    assert max(map(len, lines)) <= 80
    assert len(lines) > 5 and any("98.77%" in line and "34 s" in line for line in lines)
    assert " ".join(line.split("  ")[0] for line in lines[3:]).split() == name.split()


def test_a_row_is_plain_data(contender: Contender) -> None:
    read = json.loads(json.dumps(contender.to_dict()))
    assert comparison_of({"comparison": [read]}) == [contender]
    assert read["allocation"]["2.act_quant"] == 3


def use(name: str, share: float) -> BudgetUse:
    return BudgetUse(name=name, value=share * 1e6, limit=1e6, use=share, unit="things", feasible=share <= 1.0)


@pytest.fixture
def rows(contender: Contender) -> list[Contender]:
    """Three trainings under two budgets, of which uniform 4 breaks one."""
    fixed = replace(contender, searched=False)
    return [
        replace(fixed, name="uniform 2", accuracy=0.952, costs=(use("lut", 0.8), use("dsp", 0.5))),
        replace(fixed, name="uniform 4", accuracy=0.99, costs=(use("lut", 1.123), use("dsp", 0.5))),
        replace(fixed, name="by hand (8, 2, 8)", accuracy=0.97, costs=(use("lut", 0.95), use("dsp", 0.5))),
        replace(contender, accuracy=0.98, costs=(use("lut", 0.99), use("dsp", 0.5))),
    ]


def test_every_budget_has_a_column_in_which_what_is_above_is_marked(rows: list[Contender]) -> None:
    lines = printed(*rows)
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[:4] == ["model", "accuracy", "lut", "dsp"]
    found = {tuple(line.split()[:2]): line for line in lines}
    assert "112%!" in found["uniform", "4"] and "80.0%" in found["uniform", "2"]
    assert sum(line.count("!") for line in lines) == 2 and lines[-1] == "! above the budget"


def test_board_budgets_fit_into_80_columns(rows: list[Contender]) -> None:
    uses = [use(name, 1.5) for name in ("lut", "bram_18k", "dsp", "uram", "cycles", "latency")]
    for count in range(1, 7):
        broken = [replace(row, costs=tuple(uses[:count]), test=0.975, name="uniform 2 and 4") for row in rows]
        lines = printed(*broken)
        assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
        assert sum(line.count("150%!") for line in lines) == 4 * count


def test_the_verdict_is_about_what_keeps_the_budgets(rows: list[Contender]) -> None:
    first, by_hand, above = verdict(rows)
    assert first == "Best uniform widths within the budgets (uniform 2): 95.20%; this: 98.00% (+2.80)."
    assert by_hand == "By hand (8, 2, 8): 97.00% (this: +1.00)."
    assert above == "Uniform 4 reaches 99.00% above its budget: lut at 112%."


def test_the_verdict_where_no_uniform_widths_keep_the_budgets(rows: list[Contender]) -> None:
    found = verdict([rows[1], rows[-1]])
    assert found[0] == "No uniform widths that were trained keep the budgets; this: 98.00%."
    assert verdict([rows[-1]], ["No uniform widths keep the budgets."]) == [
        "No uniform widths keep the budgets.",
        "This: 98.00%.",
    ]


def test_the_verdict_says_what_is_worse_and_what_breaks_a_budget_itself(rows: list[Contender]) -> None:
    worse = replace(rows[-1], accuracy=0.94, costs=(use("lut", 1.2), use("dsp", 1.0)))
    first, *_, last = verdict([rows[0], worse])
    assert first.endswith("95.20%; this: 94.00% (-1.20).")
    assert last == "This reaches 94.00% above its budget: lut at 120%."


def test_the_test_metric_is_reported_beside_the_validation_metric(rows: list[Contender]) -> None:
    tested = [replace(row, test=row.accuracy - 0.01) for row in (rows[0], rows[-1])]
    assert "On the test data: 94.20%; this: 97.00% (+2.80)." in verdict(tested)
    assert "94.20%" in "".join(printed(*tested))


def test_the_axis_is_the_budget_that_binds(rows: list[Contender]) -> None:
    assert binding_budget(rows) == "lut"
    fuller = [replace(row, costs=(row.costs[0], use("dsp", 1.0))) for row in rows]
    assert binding_budget(fuller) == "lut"  # all use as much of the other
    assert binding_budget([replace(row, costs=()) for row in rows]) is None


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
