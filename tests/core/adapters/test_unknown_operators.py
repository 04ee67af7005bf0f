"""Operators of which nobody knows what they multiply: named, refused by costs, stated by their author."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

import gfb_brevitas as gfb
from gfb_brevitas.adapters.operator_kinds import operator_name
from gfb_brevitas.adapters.product_recorder import KERNEL, NUMPY
from gfb_brevitas.cli import app
from gfb_brevitas.costs import ActivationMemory, BitOperations, LatencyTable, WeightSize
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.report import Contender, profile_table
from tests.core.adapters.layer_kinds import Forward

WIDTH = 8
WEIGHT = torch.eye(WIDTH)


@torch.library.custom_op("unknown_test::product", mutates_args=())
def product(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@torch.library.custom_op("unknown_test::multiplied", mutates_args=())
def multiplied(x: Tensor, weight: Tensor) -> Tensor:
    return (x.round() @ weight.round()).to(torch.int32)


@torch.library.custom_op("unknown_test::stated", mutates_args=())
def stated(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@torch.library.custom_op("unknown_test::harmless", mutates_args=())
def harmless(x: Tensor) -> Tensor:
    return x.tanh()


@torch.library.custom_op("unknown_test::adds_into", mutates_args=("x",))
def adds_into(x: Tensor, weight: Tensor) -> None:
    x += x @ weight


class InNumpy(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() @ np.eye(WIDTH, dtype=np.float32))


def by_address(values: Tensor) -> Tensor:
    """As a kernel that is launched on addresses writes its result."""
    result = torch.empty_like(values)
    ctypes.memmove(result.data_ptr(), values.data_ptr(), values.numel() * values.element_size())
    return result


def model(operator: Callable[[Tensor], Tensor]) -> nn.Module:
    return Forward(
        lambda m, x: m.out(m.layer(m.act(x))),
        act=qnn.QuantIdentity(),
        layer=Forward(lambda _, x: operator(x)),
        out=qnn.QuantLinear(WIDTH, 2, bias=False, input_quant=None),
    )


def profile_of(operator: Callable[[Tensor], Tensor]) -> ModelProfile:
    torch.manual_seed(0)
    return gfb.make_searchable(model(operator), torch.randn(2, WIDTH)).profile


UNKNOWN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "operator_of_others": (lambda x: product(x, WEIGHT), "unknown_test::product"),
    "operator_that_writes": (lambda x: (y := x * 1, adds_into(y, WEIGHT))[0], "unknown_test::adds_into"),
    "integers_of_others": (lambda x: multiplied(x, WEIGHT).float(), "unknown_test::multiplied"),
    "numpy": (lambda x: torch.from_numpy(x.numpy() * 2) + 1, NUMPY),
    "numpy_without_asking": (lambda x: torch.as_tensor(np.asarray(x) * 2), NUMPY),
    "numpy_in_a_function": (InNumpy.apply, NUMPY),
    "lists": (lambda x: torch.tensor([[v * v for v in row] for row in x.tolist()]), NUMPY),
    "capsule": (lambda x: torch.from_dlpack(np.from_dlpack(x).copy()), NUMPY),
    "kernel": (by_address, KERNEL),
    "inverse": (lambda x: x @ torch.linalg.inv(WEIGHT * 2 + x.sum() * 0), "aten::linalg_inv_ex"),
    "decomposition": (lambda x: torch.linalg.svd(x).Vh, "aten::_linalg_svd"),
    "spectrum": (lambda x: torch.fft.fft(x).abs(), "aten::_fft_r2c"),
    "branch": (lambda x: torch.cond(x.sum() > -1e9, torch.sin, torch.cos, (x,)), "higher_order::cond"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_operator_is_named_with_its_layer_and_its_quantizers(name: str) -> None:
    operator, expected = UNKNOWN[name]
    (found,) = profile_of(operator).unknown_operators
    assert (found.name, found.layer) == (expected, "layer")
    assert found.reason
    if name in ("operator_of_others", "numpy", "lists", "numpy_in_a_function", "decomposition", "branch"):
        assert found.quantizers == ("act.act_quant",)


KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "values_are_looked_at": lambda x: (x.tolist(), x.numpy(), x + torch.ones(WIDTH))[2],
    "memory_that_is_written": lambda x: (
        torch.empty_like(x).copy_(x).add_(torch.zeros_like(torch.empty(WIDTH)))
    ),
    "element_by_element": lambda x: F.gelu(x).pow(2).cumsum(-1).logsumexp(-1, keepdim=True) + x,
    "norms": lambda x: F.layer_norm(F.rms_norm(F.group_norm(x[..., None], 2)[..., 0], (WIDTH,)), (WIDTH,)),
    "random": lambda x: torch.rand_like(x).bernoulli() * F.dropout(x, 0.3, True),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_not_called_unknown(name: str) -> None:
    assert profile_of(KNOWN[name]).unknown_operators == ()


def test_costs_of_computation_are_refused_and_others_are_not() -> None:
    profile = profile_of(lambda x: product(x, WEIGHT))
    bits = np.full((1, len(profile)), 4)
    with pytest.raises(
        ConfigurationError,
        match=r"'bit_operations' is not known.*_test::product in 'layer'.*register_operator_cost\('unknown",
    ):
        BitOperations().bind(profile)
    with pytest.raises(ConfigurationError, match="unknown_test::product"):
        BitOperations().parts(profile, bits[0])
    assert WeightSize().bind(profile)(bits)[0] == 4 * 2 * WIDTH
    assert ActivationMemory().bind(profile)(bits)[0] == 4 * WIDTH


def test_a_table_of_latencies_lists_what_is_unknown() -> None:
    profile = profile_of(lambda x: product(x, WEIGHT))
    entries = {(w, a): 1.0 for w in range(1, 9) for a in range(1, 33)}
    bits = np.full((1, len(profile)), 4)
    lacking = LatencyTable(name="latency", unit="us", layers={"out": entries})
    with pytest.raises(
        ConfigurationError, match=r"must list the layer 'layer' without entries.*_test::product"
    ):
        lacking.bind(profile)
    measured = LatencyTable(name="latency", unit="us", layers={"out": entries, "layer": {}}, constant=5.0)
    assert measured.bind(profile)(bits)[0] == 6.0


def test_hardware_costs_refuse_it_also_at_the_end_of_a_network() -> None:
    torch.manual_seed(0)
    last = nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantLinear(WIDTH, WIDTH, bias=False, weight_bit_width=4),
    )
    (budget, *_) = gfb.Budget.board("Pynq-Z1", fps=1000)
    x = torch.randn(2, WIDTH)

    def lut(end: Callable[[Tensor], Tensor]) -> Any:
        network = nn.Sequential(*last, Forward(lambda _, y: end(y)))
        return budget.cost.bind(gfb.make_searchable(network, x).profile)

    assert lut(lambda y: y.softmax(-1))
    for end, said in (
        (lambda y: product(y, WEIGHT), "unknown_test::product"),
        (lambda y: torch.from_numpy(y.numpy()), NUMPY),
        (
            lambda y: F.scaled_dot_product_attention(*[y[:, None, None]] * 3),
            "scaled_dot_product|product of two",
        ),
        (nn.LSTM(WIDTH, WIDTH, batch_first=True).eval(), "mkldnn_rnn_layer|matmul|reshape"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            lut(lambda y, end=end: end(y[:, None])[0] if isinstance(end, nn.LSTM) else end(y))


def test_a_stated_cost_is_counted_with_its_operands() -> None:
    gfb.register_operator_cost("unknown_test::stated", lambda x, weight: x.numel() * weight.shape[1])
    profile = profile_of(lambda x: stated(x, WEIGHT))
    assert profile.unknown_operators == ()
    (found,) = [p for p in profile.products if p.layer == "layer"]
    assert found.macs == WIDTH * WIDTH
    assert found.left.quantizers == ("act.act_quant",) and found.right.constant_bits == 32
    bits = np.full((1, len(profile)), 4)
    assert BitOperations().bind(profile)(bits)[0] == WIDTH * WIDTH * 4 * 32 + 2 * WIDTH * 32 * 4


def test_operands_may_be_others_and_a_cost_may_be_zero() -> None:
    gfb.register_operator_cost("unknown_test::harmless", 0)
    profile = profile_of(lambda x: harmless(x))
    assert profile.unknown_operators == () and {p.layer for p in profile.products} == {"out"}
    gfb.register_operator_cost("unknown_test::stated", lambda *_: 2 * 5, operands=(1, 0))
    (found,) = [p for p in profile_of(lambda x: stated(x, WEIGHT)).products if p.layer == "layer"]
    assert (found.macs, found.right.quantizers) == (5, ("act.act_quant",))


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("gate", 0), {}, r"namespace::operator.*got 'gate'"),
        (("lib::gate.default", 0), {}, "without an overload"),
        ((7, 0), {}, "got 7"),
        (("lib::gate", 12), {}, r"must be a function of its arguments, or 0.*got 12"),
        (("lib::gate", True), {}, "got True"),
        (("lib::gate", None), {}, "got None"),
        (("lib::gate", 0), {"operands": (0,)}, r"two positions.*got \(0,\)"),
        (("lib::gate", 0), {"operands": (0, -1)}, "two positions"),
    ],
)
def test_a_cost_that_is_none_is_refused(arguments: Any, options: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        gfb.register_operator_cost(*arguments, **options)


@pytest.mark.parametrize("returned", [float("nan"), -1, "many", None, float("inf")])
def test_a_stated_cost_must_be_a_number(returned: Any) -> None:
    gfb.register_operator_cost("unknown_test::stated", lambda *_: returned)
    with pytest.raises(ConfigurationError, match=r"unknown_test::stated.*finite number of at least zero"):
        profile_of(lambda x: stated(x, WEIGHT))


def test_a_stated_cost_that_fails_is_told_as_its_own() -> None:
    gfb.register_operator_cost("unknown_test::stated", lambda x: x.numel())
    with pytest.raises(ConfigurationError, match=r"cost of operator 'unknown_test::stated'.*TypeError"):
        profile_of(lambda x: stated(x, WEIGHT))


def test_the_table_of_a_model_and_comparisons_say_it() -> None:
    searchable = gfb.make_searchable(model(lambda x: product(x, WEIGHT)), torch.randn(2, WIDTH))
    console = Console(width=200, file=None, record=True, quiet=False)
    with console.capture() as printed:
        console.print(profile_table(searchable.profile))
    assert "Nobody knows what unknown_test::product multiplies" in printed.get()
    row = Contender.of("mine", searchable.space, searchable.allocation, accuracy=0.5, epochs=1, seconds=1.0)
    assert row.bit_operations is None


def test_inspecting_a_model_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["inspect", f"{__name__}:make"])
    assert shown.exit_code == 0 and "Nobody knows what unknown_test::product multiplies" in shown.stdout
    assert "bit_operations" not in shown.stdout
    as_json = CliRunner().invoke(app, ["inspect", f"{__name__}:make", "--json"])
    (found,) = json.loads(as_json.stdout)["unknown_operators"]
    assert (found["name"], found["layer"]) == ("unknown_test::product", "layer")


def make() -> tuple[nn.Module, Tensor]:
    return model(lambda x: product(x, WEIGHT)), torch.randn(2, WIDTH)


def test_a_run_says_it_at_its_start_and_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    searchable = gfb.make_searchable(model(lambda x: x + product(x, WEIGHT)), torch.randn(2, WIDTH))
    batches = [(torch.randn(4, WIDTH), torch.tensor([0, 1, 0, 1]))]
    settings = {
        "loss": lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
        "train_batches": batches,
        "search": gfb.SearchConfig(rounds=1, epochs_per_round=0, evaluations_per_step=8, steps_per_round=1),
        "run_folder": tmp_path / "run",
    }
    with pytest.raises(ConfigurationError, match="'bit_operations' is not known"):
        gfb.fit(searchable, budgets=[gfb.Budget(cost=BitOperations(), limit=1e6)], **settings)
    with caplog.at_level(logging.WARNING):
        gfb.fit(searchable, budgets=[gfb.Budget(cost=WeightSize(), limit=64)], **settings)
    assert "Nobody knows what unknown_test::product multiplies" in caplog.text
    (found,) = gfb.RecordedRun.load(tmp_path / "run").unknown_operators
    assert found == searchable.profile.unknown_operators[0]


def test_names_are_those_of_the_schema() -> None:
    assert operator_name(torch.ops.aten.addmm_.default) == "aten::addmm"
    assert operator_name(torch.ops.aten.__and__.Tensor) == "aten::__and__"
    assert operator_name(torch.ops.higher_order.cond) == "higher_order::cond"
