"""Small real runs in folders, of every kind that plots and reports must cope with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

from gfb_brevitas.constraints import Budget
from gfb_brevitas.costs import BitOperations
from gfb_brevitas.search.run_folder import add_to_summary
from gfb_integrations._documents import digest_of
from gfb_integrations.finn import FinnEstimate, FinnNode, FinnVerification, StageComparison
from tests.core.search import small_problem as problem

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{x}$y$<b>b</b>%{y}"
"""A name that would break out of HTML, of JSON in a script, of plotly's markup, of Matplotlib's formulas."""

MANY = 200


class Stop(BaseException):
    """Stands for whatever ends a process."""


class StopInSecondRound:
    """Ends a run in the middle of a gradient-free step."""

    def on_generation(self, record: Any) -> None:
        if record.round == 2 and record.generation == 2:
            raise Stop


def network(name: str = "first") -> nn.Module:
    """Two layers whose inputs and weights are quantized."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("in", qnn.QuantIdentity(return_quant_tensor=True))
    model.add_module(name, qnn.QuantLinear(problem.FEATURES, 12, bias=True, weight_bit_width=4))
    model.add_module("relu", qnn.QuantReLU(bit_width=4, return_quant_tensor=True))
    model.add_module("last", qnn.QuantLinear(12, problem.CLASSES, bias=True, weight_bit_width=4))
    return model


class Deep(nn.Module):
    """A hundred layers with long names and residual additions."""

    def __init__(self) -> None:
        super().__init__()
        for place in range(MANY // 2):
            block = nn.Sequential(
                qnn.QuantIdentity(bit_width=4), qnn.QuantLinear(problem.FEATURES, problem.FEATURES, bias=True)
            )
            self.add_module(f"stage{place // 25}_block{place % 25}_convolution", block)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of all blocks; its first values are the classes."""
        for block in self.children():
            x = x + 0.1 * block(x)
        return x[:, : problem.CLASSES]


def ended(folder: Path) -> None:
    """A run with everything: a comparison and an export in the summary."""
    search = replace(problem.SEARCH, evaluations_per_step=24)
    result = problem.run(problem.searchable(network()), search=search, run_folder=folder)
    uniform = result.searchable.space.uniform(4)
    row: dict[str, Any] = {
        "name": "uniform 4",
        "accuracy": 0.91,
        "allocation": dict(uniform),
        "weight_bits": 576.0,
        "mean_weight_bits": 4.0,
        "mean_activation_bits": 4.0,
        "bit_operations": 2304.0,
        "epochs": 5,
        "seconds": 1.0,
        "costs": [_use("weight_size", 576.0, 518.4), _use("mean_activation_bits", 4.0, 3.9)],
        "searched": False,
    }
    costs = [_use("weight_size", 480.0, 518.4), _use("mean_activation_bits", 3.0, 3.9)]
    small = {**row, "name": "uniform 3", "accuracy": 0.9, "costs": costs}
    searched = {**row, "name": "searched, budget 4", "accuracy": 0.93, "weight_bits": 480.0}
    searched |= {"costs": [_use("weight_size", 500.0, 518.4), *costs[1:]], "searched": True}
    proof = {"samples": 64, "max_abs_diff": 2e-7, "argmax_agreement": 1.0, "layers_compared": 5}
    figures = {
        "accuracy": 0.93,
        "comparison": [row, small, searched],
        "qonnx": {"path": str(folder / "model.qonnx.onnx"), "size_bytes": 4321, "verification": proof},
    }
    add_to_summary(folder, figures)
    assert result.run_folder == folder


def _use(name: str, value: float, limit: float) -> dict[str, Any]:
    share = {"value": value, "limit": limit, "use": value / limit, "feasible": value <= limit}
    return {"name": name, "unit": "bits", **share}


def hostile(folder: Path) -> None:
    """A run with names that must not be believed."""
    problem.run(problem.searchable(network(HOSTILE)), run_folder=folder)


def under_way(folder: Path) -> None:
    """A run that stopped in the middle."""
    with suppress(Stop):
        problem.run(problem.searchable(network()), run_folder=folder, callbacks=[StopInSecondRound()])


def without_budgets(folder: Path) -> None:
    """A run that nothing limits, searched without an estimate of sensitivities."""
    problem.run(run_folder=folder, budgets=[], search=replace(problem.SEARCH, method="cma-es"))


def given(folder: Path) -> None:
    """A run of fixed widths: nothing was searched."""
    allocation = dict.fromkeys(("0.weight_quant", "2.act_quant", "4.weight_quant"), 3)
    problem.run(run_folder=folder, allocation=allocation)


def single(folder: Path) -> None:
    """A run with one quantizer."""
    torch.manual_seed(0)
    module = nn.Sequential(qnn.QuantLinear(problem.FEATURES, problem.CLASSES, bias=True, weight_bit_width=4))
    problem.run(problem.searchable(module), run_folder=folder, budgets=problem.budgets()[:1])


def not_finite(folder: Path) -> None:
    """A run in which some losses of candidates are NaN."""
    calls = 0

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal calls
        calls += not torch.is_grad_enabled()
        value = problem.loss(model, batch)
        return value if torch.is_grad_enabled() or calls % 5 else value * float("nan")

    search = replace(problem.SEARCH, evaluator="reference")
    problem.run(run_folder=folder, loss=loss, search=search)


def many(folder: Path) -> None:
    """A run with two hundred quantizers."""
    search = replace(
        problem.SEARCH,
        rounds=1,
        steps_per_round=1,
        epochs_per_round=1,
        pretrain_epochs=0,
        evaluations_per_step=4,
        method="cma-es",
        evaluator="reference",
        super_batch_size=1,
        reevaluate_best=1,
    )
    budgets = [*problem.budgets(), replace(problem.budgets()[0], cost=BitOperations())]
    problem.run(
        problem.searchable(Deep()),
        run_folder=folder,
        search=search,
        budgets=budgets,
        train_batches=problem.loader(64),
        calibrate=False,
    )


def on_a_board(folder: Path) -> None:
    """A run under a board's budgets, with what FINN might have said of it."""
    budgets = Budget.board("Pynq-Z1", fps=1_000_000, utilisation=0.5)
    problem.run(problem.searchable(network()), run_folder=folder, budgets=budgets)
    (folder / "model.qonnx.onnx").write_bytes(b"stands for a model")
    common: dict[str, Any] = {
        "versions": {"finn-plus": "1.6.1", "qonnx": "1.0.0"},
        "model_sha256": digest_of(folder / "model.qonnx.onnx"),
        "board": "Pynq-Z1",
    }
    FinnEstimate(
        part="xc7z020clg400-1",
        clock_mhz=100.0,
        nodes=(_node("Thresholding_rtl", 8, 40.0, 0.0), _node("MVAU_hls", 96, 900.0, 2.0, SIMD=1)),
        host_nodes=("Transpose_0",),
        critical_path_cycles=104,
        folded_by="search",
        layers={"Thresholding_rtl_0": "in", "MVAU_hls_0": "first"},
        **common,
    ).save(folder / "finn_estimate.json")
    FinnVerification(
        path="model.qonnx.onnx",
        samples=16,
        output_step=0.1,
        stages=(_exact("qonnx", 0.0), _exact("hardware layers", 6e-8)),
        compared_with="PyTorch",
        **common,
    ).save(folder / "finn_verification.json")


def _node(kind: str, cycles: int, lut: float, bram_18k: float, **attributes: int) -> FinnNode:
    return FinnNode(
        name=f"{kind}_0",
        kind=kind,
        inputs=(),
        cycles=cycles,
        lut=lut,
        bram_18k=bram_18k,
        uram=0.0,
        dsp=0.0,
        attributes={"PE": 1, **attributes},
        input_types=(),
        output_types=(),
        input_shapes=(),
    )


def _exact(stage: str, difference: float) -> StageComparison:
    return StageComparison(
        stage=stage,
        max_abs_diff=difference,
        max_diff_steps=0,
        argmax_agreement=1.0,
        node=None,
        quantizer=None,
        differing_values=0,
        exact=True,
    )


KINDS: dict[str, Callable[[Path], None]] = {
    kind.__name__: kind
    for kind in (ended, hostile, under_way, without_budgets, given, single, not_finite, many, on_a_board)
}
