"""Bad input of all kinds: a clear error before work is lost, or a run that survives it.

An error says the rule, the value it received and what to do; ``says`` holds a piece of each.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.costs import CallableCost, LatencyTable, WeightSize
from gfb_brevitas.extras import install_command
from gfb_brevitas.search.checkpoint import CheckpointStore, load_model_state
from tests.core.search.small_problem import (
    FEATURES,
    SEARCH,
    accuracy,
    comparable,
    loader,
    loss,
    network,
    points,
    run,
    searchable,
)
from tests.forked_python import ForkedPython, completed_python

ROOT = Path(__file__).parents[2]
EXAMPLE = torch.zeros(2, FEATURES)
QUICK = replace(SEARCH, rounds=1, steps_per_round=1, epochs_per_round=1)
UNTIED = {"0.weight_quant": 4, "2.act_quant": 4, "4.weight_quant": 3}


def never(*arguments: Any) -> Any:
    raise AssertionError("nothing may run before the input is refused")


def quick(**changes: Any) -> gfb.SearchResult:
    """The shortest run with all its parts."""
    return run(**{"search": QUICK, **changes})


def make(model: Any = None, inputs: Any = EXAMPLE, **changes: Any) -> SearchableModel:
    return gfb.make_searchable(network() if model is None else model, inputs, **changes)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def allocation_file(folder: Path, **changes: Any) -> Path:
    document = {"format": "gfb_brevitas.allocation", "version": 1, "bits": {}, **changes}
    return written(folder / "allocation.json", json.dumps(document))


def loaded(path: Path) -> gfb.BitAllocation:
    return gfb.BitAllocation.load(path)


def all_of(reduction: str) -> Callable[[nn.Module, Any], Tensor]:
    return lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction=reduction)


def batches_of(inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(inputs, torch.zeros(len(inputs), dtype=torch.long))]


def limited(**changes: Any) -> gfb.Budget:
    return gfb.Budget(cost=WeightSize(), **changes)


def opposed() -> list[gfb.Budget]:
    """One budget wants small widths, the other wide ones; each can be met alone."""
    coarse = CallableCost(name="coarseness", unit="1/bits", function=lambda a: 1 / a["0.weight_quant"])
    return [limited(limit=200.0), gfb.Budget(cost=coarse, limit=0.2)]


class Branching(nn.Module):
    """Which way the data goes depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum() > 0 else x


@dataclass(frozen=True)
class Case:
    """What is done with a temporary folder, the error, and pieces of its message in their order."""

    name: str
    act: Callable[[Path], Any]
    error: type[gfb.GfbError]
    says: tuple[str, ...]


MODELS = [
    Case(
        "a float model",
        lambda folder: make(nn.Sequential(nn.Linear(FEATURES, 2))),
        gfb.NothingSearchableError,
        ("Sequential holds no Brevitas quantizer", "quantize_float_model(model, example_inputs)"),
    ),
    Case(
        "no quantizer that is on",
        lambda folder: make(qnn.QuantLinear(FEATURES, 2, bias=True, weight_quant=None)),
        gfb.NothingSearchableError,
        ("QuantLinear holds no Brevitas quantizer", "Build it from brevitas.nn layers"),
    ),
    Case(
        "no model",
        lambda folder: gfb.make_searchable(None, EXAMPLE),  # type: ignore[arg-type]
        gfb.ConfigurationError,
        ("model must be an instance of torch.nn.Module", "got None"),
    ),
    Case(
        "a class instead of a model",
        lambda folder: gfb.make_searchable(nn.Linear, EXAMPLE),  # type: ignore[arg-type]
        gfb.ConfigurationError,
        ("model must be an instance", "got the class Linear"),
    ),
    Case(
        "a model that is searchable already",
        lambda folder: make(searchable()),
        gfb.ConfigurationError,
        ("searchable already", "pass the Brevitas model"),
    ),
    Case(
        "a float model that cannot be traced",
        lambda folder: gfb.quantize_float_model(Branching(), EXAMPLE),
        gfb.UntraceableModelError,
        ("could not quantize Branching", "torch.fx cannot follow", "TraceError", "brevitas.nn layers"),
    ),
    Case(
        "a float model that is none",
        lambda folder: gfb.quantize_float_model(None, EXAMPLE),  # type: ignore[arg-type]
        gfb.ConfigurationError,
        ("model must be an instance", "got None"),
    ),
    Case(
        "a model that fails on the example inputs",
        lambda folder: make(inputs=torch.zeros(2, FEATURES + 1)),
        gfb.UntraceableModelError,
        ("failed on the example inputs", "(2x9 and 8x12)", "a tensor, a tuple", "or a mapping"),
    ),
    Case(
        "example inputs that are none",
        lambda folder: gfb.make_searchable(network(), None),  # type: ignore[arg-type]
        gfb.UntraceableModelError,
        ("must be one batch: a tensor, a tuple", "got 'NoneType'", "batch_size"),
    ),
    Case(
        "a DataLoader as example inputs",
        lambda folder: make(inputs=loader()),
        gfb.UntraceableModelError,
        ("must be one batch", "got 'DataLoader'"),
    ),
    Case(
        "an empty batch",
        lambda folder: make(inputs=torch.zeros(0, FEATURES)),
        gfb.UntraceableModelError,
        ("no tensor with a batch dimension (or an empty one)", "at least one sample"),
    ),
    *(
        Case(
            f"bits={bits}",
            lambda folder, bits=bits: make(bits=bits),
            gfb.ConfigurationError,
            ("bits must be (smallest, largest) from 1 to 32", f"got {bits!r}"),
        )
        for bits in [(0, 8), (8, 2), (1, 64), 8, (1.5, 8), (1,), (1, 2, 3), ("a", "b"), None]
    ),
    Case(
        "a rule that matches nothing",
        lambda folder: make(rules=[gfb.Fix("head.*", 8)]),
        gfb.ConfigurationError,
        ("Fix(names='head.*', bits=8", "matches no quantizer", "There are: 0.weight_quant, 2.act_quant"),
    ),
    Case(
        "tied quantizers without a common width",
        lambda folder: make(
            rules=[gfb.Tie("*.weight_quant"), gfb.Range("0.*", 1, 2), gfb.Range("4.*", 3, 4)]
        ),
        gfb.ConfigurationError,
        ("tied but have no width in common", "0.weight_quant 1 to 2, 4.weight_quant 3 to 4"),
    ),
    Case(
        "a rule that is not in a list",
        lambda folder: make(rules=gfb.Fix("0.*", 8)),
        gfb.ConfigurationError,
        ("`rules` must be a list or tuple of Range, Fix and Tie", "got Fix(names='0.*', bits=8"),
    ),
    Case(
        "a range upside down",
        lambda folder: gfb.Range("0.*", 4, 3),
        gfb.ConfigurationError,
        ("1 <= min <= max <= 32", "got 4 to 3 for '0.*'"),
    ),
]

BUDGETS = [
    Case(
        "a budget that cannot be met",
        lambda folder: quick(budgets=[limited(limit=1.0)], loss=never, metric=never),
        gfb.InfeasibleBudgetError,
        ("weight_size CANNOT BE MET", "at most 1 bits", "smallest reachable: 144 bits", "Raise the budgets"),
    ),
    Case(
        "budgets that exclude each other",
        lambda folder: quick(budgets=opposed(), loss=never, metric=never),
        gfb.InfeasibleBudgetError,
        (
            "Each budget can be met alone, but no allocation was found that meets all",
            "weight_size: must be at most 200 bits",
            "smallest reachable: 144 bits",
            "coarseness: must be at most 0.2",
            "0.125 1/bits",
            "allow smaller widths",
        ),
    ),
    *(
        Case(
            f"a budget with {setting}={value!r}",
            lambda folder, setting=setting, value=value, rest=rest: limited(**{setting: value}, **rest),
            gfb.ConfigurationError,
            (f"`{setting}` of the budget on weight_size must be", f"got {value!r}"),
        )
        for setting, rest, values in (
            ("beta", {"uniform_bits": 2}, [0, -1.0, math.nan, "0.9"]),
            ("limit", {}, [-5.0, 0.0, math.nan, math.inf, "5"]),
            ("rho", {"limit": 5.0}, [-1.0, math.nan]),
            ("uniform_bits", {}, [0, 2.5, (1, 2, 3)]),
        )
        for value in values
    ),
    Case(
        "a budget that is not in a list",
        lambda folder: quick(budgets=limited(limit=500.0), loss=never),
        gfb.ConfigurationError,
        ("`budgets` must be a list or tuple of Budget", "got Budget(", "limit=500.0"),
    ),
    Case(
        "a latency table that is broken",
        lambda folder: LatencyTable.load(written(folder / "table.json", '{"format": ')),
        gfb.ConfigurationError,
        ("table.json: Not a cost table", "not valid JSON", "line 1 column"),
    ),
    Case(
        "a latency table of other layers",
        lambda folder: quick(
            budgets=[
                gfb.Budget(
                    cost=LatencyTable(name="latency", unit="us", layers={"conv": {(8, 8): 1.0}}), limit=3.0
                )
            ],
            loss=never,
        ),
        gfb.ConfigurationError,
        ("'latency' names layers that the model lacks: conv", "The model has: 0, 4"),
    ),
]

DATA = [
    Case(
        "an empty loader",
        lambda folder: quick(train_batches=[], loss=never),
        gfb.EmptyDataError,
        ("`train_batches` must yield at least one batch", "yielded none"),
    ),
    Case(
        "a one-shot generator",
        lambda folder: quick(train_batches=(batch for batch in loader()), loss=never),
        gfb.ConfigurationError,
        ("`train_batches` must be iterable more than once", "got the one-shot", "'generator'", "Pass a list"),
    ),
    Case(
        "no data",
        lambda folder: quick(train_batches=None, loss=never),
        gfb.ConfigurationError,
        ("`train_batches` must be an iterable of batches", "got 'NoneType'"),
    ),
    Case(
        "a dataset instead of a loader",
        lambda folder: quick(train_batches=points(), loss=never),
        gfb.ConfigurationError,
        ("`train_batches` must be an iterable of batches", "got 'TensorDataset'"),
    ),
    Case(
        "batches that the model cannot take",
        lambda folder: quick(train_batches=batches_of(torch.zeros(4, FEATURES + 1))),
        gfb.ConfigurationError,
        (
            "loss(model, batch) must work on every batch",
            "(Tensor (4, 9) float32, Tensor (4,) int64)",
            "it raised RuntimeError: mat1 and mat2 shapes",
            "Check which parts of the batch",
        ),
    ),
    Case(
        "batches that are mappings where the loss wants a tuple",
        lambda folder: quick(train_batches=[{"inputs": EXAMPLE, "labels": torch.zeros(2)}]),
        gfb.ConfigurationError,
        ("on the first one, {'inputs': Tensor (2, 8) float32, 'labels': Tensor (2,)", "KeyError: 0"),
    ),
    Case(
        "calibration data with NaN",
        lambda folder: quick(calibration_batches=batches_of(torch.full((4, FEATURES), math.nan))),
        gfb.CalibrationError,
        ("2.act_quant: ", "received NaN or infinite values", "Check the inputs"),
    ),
    Case(
        "a loss that returns nothing",
        lambda folder: quick(loss=lambda model, batch: None),
        gfb.ConfigurationError,
        ("loss(model, batch) must return one number, a tensor", "got None"),
    ),
    Case(
        "a loss that returns more than the loss",
        lambda folder: quick(loss=lambda model, batch: {"loss": loss(model, batch)}),
        gfb.ConfigurationError,
        ("loss(model, batch) must return one number, a tensor", "got {'loss': tensor("),
    ),
    Case(
        "a loss per sample",
        lambda folder: quick(loss=all_of("none")),
        gfb.ConfigurationError,
        ("must return one number", "got a tensor of shape (32,)", "with .mean()"),
    ),
    Case(
        "a loss without gradients",
        lambda folder: quick(loss=lambda model, batch: loss(model, batch).item()),
        gfb.ConfigurationError,
        ("must depend on the model's parameters with gradients", "Do not detach it"),
    ),
    Case(
        "a loss that is no function",
        lambda folder: quick(loss=3),
        gfb.ConfigurationError,
        ("`loss` must be a function loss(model, batch)", "got 3"),
    ),
    Case(
        "a loss of an unknown name",
        lambda folder: quick(loss="cross_entropie"),
        gfb.ConfigurationError,
        ("There is no loss 'cross_entropie'", "Did you mean 'cross_entropy'", "mean_squared_error"),
    ),
    Case(
        "a metric of an unknown name",
        lambda folder: quick(metric="acuracy", loss=never),
        gfb.ConfigurationError,
        ("There is no metric 'acuracy'", "Did you mean 'accuracy'"),
    ),
    Case(
        "a metric by name without its data",
        lambda folder: quick(metric="accuracy", loss=never, validation_batches=None),
        gfb.ConfigurationError,
        ("'accuracy' needs `validation_batches`",),
    ),
    Case(
        "a last batch of one sample under BatchNorm",
        lambda folder: quick(train_batches=[*loader(), *batches_of(torch.zeros(1, FEATURES))]),
        gfb.BatchError,
        ("(Tensor (1, 8) float32, Tensor (1,) int64)", "ValueError: Expected more", "drop_last=True"),
    ),
    Case(
        "a batch without samples",
        lambda folder: quick(train_batches=[*loader(), *batches_of(torch.zeros(0, FEATURES))]),
        gfb.EmptyDataError,
        ("it holds no samples: (Tensor (0, 8)", "leave such batches out"),
    ),
    Case(
        "validation data with a batch without samples",
        lambda folder: quick(
            metric=None, validation_batches=[*loader(), *batches_of(torch.zeros(0, FEATURES))]
        ),
        gfb.EmptyDataError,
        ("of the validation data is empty",),
    ),
    Case(
        "a row of bit widths that is none",
        lambda folder: searchable().set_bits([4]),
        gfb.AllocationError,
        ("A row of bit widths of this model has", "got [4]", "set_allocation(model.space.uniform(4))"),
    ),
    Case(
        "a width in place of an allocation",
        lambda folder: searchable().set_allocation(4),
        gfb.AllocationError,
        ("maps quantizer names to bit widths; got 4", "model.space.uniform(4)"),
    ),
    Case(
        "a row in place of an allocation",
        lambda folder: searchable().freeze([4, 4]),
        gfb.AllocationError,
        ("maps quantizer names to bit widths; got [4, 4]", "model.space.allocation(row)"),
    ),
    Case(
        "a metric that returns a string",
        lambda folder: quick(metric=lambda model: "0.9"),
        gfb.ConfigurationError,
        ("`metric` must return a number", "got '0.9'", "Return one float"),
    ),
    Case(
        "a metric that returns several numbers",
        lambda folder: quick(metric=lambda model: torch.zeros(2)),
        gfb.ConfigurationError,
        ("`metric` must return a number", "got tensor([0., 0.])"),
    ),
    Case(
        "a metric that is no function",
        lambda folder: quick(metric=3, loss=never),
        gfb.ConfigurationError,
        ("`metric` must be None or a function metric(model)", "got 3"),
    ),
]

SETTINGS = [
    *(
        Case(
            f"SearchConfig({name}={value!r})",
            lambda folder, name=name, value=value: gfb.SearchConfig(**{name: value}),
            gfb.ConfigurationError,
            (f"`{name}` must be", f"got {value!r}"),
        )
        for name, value in [
            ("rounds", 0),
            ("evaluations_per_step", 2),
            ("epochs_per_round", 1.5),
            ("super_batch", "sliding"),
            ("step_size", math.nan),
            ("population_size", 2),
            ("initial_bits", 99),
            ("evaluator", "fast"),
            ("seed", -1),
        ]
    ),
    Case(
        "a population that does not fit",
        lambda folder: gfb.SearchConfig(population_size=20, evaluations_per_step=10),
        gfb.ConfigurationError,
        ("`population_size` must fit into `evaluations_per_step` (10)", "got 20"),
    ),
    *(
        Case(
            f"TrainingConfig({name}={value!r})",
            lambda folder, name=name, value=value: gfb.TrainingConfig(**{name: value}),
            gfb.ConfigurationError,
            (f"`{name}` must be", f"got {value!r}"),
        )
        for name, value in [
            ("optimizer", "adamw"),
            ("learning_rate", 0.0),
            ("learning_rate", math.inf),
            ("momentum", 1.0),
            ("weight_decay", -1e-4),
            ("schedule", "step"),
            ("warmup_epochs", -1),
            ("gradient_clip_norm", 0.0),
        ]
    ),
    Case(
        "settings as a dict",
        lambda folder: quick(search={"rounds": 1}, loss=never),
        gfb.ConfigurationError,
        ("`search` must be a SearchConfig", "got {'rounds': 1}"),
    ),
    Case(
        "a model that is not searchable",
        lambda folder: gfb.fit(network(), loss=never, train_batches=loader(), budgets=()),  # type: ignore[arg-type]
        gfb.ConfigurationError,
        ("`model` must be a searchable model, made by make_searchable", "got 'Sequential'"),
    ),
    Case(
        "a callback that is not in a list",
        lambda folder: quick(callbacks=gfb.Callback(), loss=never),
        gfb.ConfigurationError,
        ("`callbacks` must be a list or tuple", "got 'Callback'"),
    ),
    Case(
        "the class of a callback",
        lambda folder: quick(callbacks=[gfb.Callback], loss=never),
        gfb.ConfigurationError,
        ("`callbacks` must be objects", "the class 'Callback'"),
    ),
    Case(
        "a callback that would never be called",
        lambda folder: quick(callbacks=[print], loss=never),
        gfb.ConfigurationError,
        ("at least one of the methods on_start", "got <built-in function print>"),
    ),
    Case(
        "a run folder under a file",
        lambda folder: quick(run_folder=written(folder / "file", "") / "run", loss=never),
        gfb.ConfigurationError,
        ("The run folder", "file/run' cannot be made: Not a directory", "can be written to"),
    ),
    Case(
        "a run folder that is a file",
        lambda folder: quick(run_folder=written(folder / "file", ""), loss=never),
        gfb.ConfigurationError,
        ("The run folder", "file' cannot be made: File exists"),
    ),
    Case(
        "a run folder whose files cannot be written",
        lambda folder: [
            (folder / "run.lock").mkdir(),
            quick(run_folder=folder, loss=never),
        ],
        gfb.CheckpointError,
        ("cannot be written: ", "Is a directory", "repair the folder"),
    ),
    Case(
        "a storage that cannot be opened",
        lambda folder: quick(storage=f"sqlite:///{folder}/none/study.db", loss=never),
        gfb.ConfigurationError,
        ("The storage 'sqlite:///", "cannot be opened: ", "unable to open database file", "Check the URL"),
    ),
    Case(
        "a storage of an unknown kind",
        lambda folder: quick(storage="study.db", loss=never),
        gfb.ConfigurationError,
        ("The storage 'study.db' cannot be opened", "Check the URL"),
    ),
]

ALLOCATIONS = [
    Case(
        "no allocation file",
        lambda folder: loaded(folder / "allocation.json"),
        gfb.AllocationError,
        ("allocation.json' cannot be read", "No such file"),
    ),
    Case(
        "an allocation file that is not JSON",
        lambda folder: loaded(written(folder / "allocation.json", "0.weight_quant: 4")),
        gfb.AllocationError,
        ("allocation.json: Not an allocation file", "not valid JSON", "line 1"),
    ),
    Case(
        "an allocation file that is other JSON",
        lambda folder: loaded(written(folder / "allocation.json", '{"0.weight_quant": 4}')),
        gfb.AllocationError,
        ("allocation.json: Not an allocation file", '"format": "gfb_brevitas.allocation"'),
    ),
    Case(
        "an allocation file of a later version",
        lambda folder: loaded(allocation_file(folder, version=2)),
        gfb.AllocationError,
        ("reads allocation files of version 1", "got 2"),
    ),
    *(
        Case(
            f"an allocation file with the width {width!r}",
            lambda folder, width=width: loaded(allocation_file(folder, bits={"0.weight_quant": width})),
            gfb.AllocationError,
            ("'0.weight_quant'", "whole number from 1 to 32", f"got {width!r}"),
        )
        for width in [2.5, 0, 33, "4", None]
    ),
    Case(
        "the name of an allocation file as an allocation",
        lambda folder: quick(allocation="allocation.json", loss=never),
        gfb.AllocationError,
        ("maps quantizer names to bit widths", "got 'allocation.json'", "BitAllocation.load(path)"),
    ),
    Case(
        "an allocation of other names",
        lambda folder: quick(allocation={"conv.weight_quant": 4, "2.act_quant": 4}, loss=never),
        gfb.AllocationError,
        ("does not fit the model", "it lacks 0.weight_quant, 4.weight_quant", "has no conv.weight_quant"),
    ),
    Case(
        "an allocation outside the range",
        lambda folder: make(bits=(2, 4)).set_allocation({**UNTIED, "0.weight_quant": 5}),
        gfb.AllocationError,
        ("'0.weight_quant' must be from 2 to 4", "got 5"),
    ),
    Case(
        "an allocation with different widths for tied quantizers",
        lambda folder: make(rules=[gfb.Tie("*.weight_quant")]).set_allocation(UNTIED),
        gfb.AllocationError,
        ("tied and need one bit width", "0.weight_quant 4, 4.weight_quant 3"),
    ),
]

CASES = [*MODELS, *BUDGETS, *DATA, *SETTINGS, *ALLOCATIONS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_with_a_clear_message(case: Case, tmp_path: Path) -> None:
    with pytest.raises(case.error) as raised:
        case.act(tmp_path)
    message, place = str(raised.value), 0
    for piece in case.says:
        assert piece in message[place:], f"{piece!r} is missing in {message!r}"
        place = message.index(piece, place) + len(piece)
    in_lines = 'File "' in message or case.error is gfb.InfeasibleBudgetError  # lines of the user's code
    assert in_lines or "\n" not in message


def test_a_refused_allocation_changes_nothing() -> None:
    model = searchable()
    before = model.allocation
    for bad in ({**UNTIED, "0.weight_quant": 9}, {"0.weight_quant": 2}):
        with pytest.raises(gfb.AllocationError):
            model.set_allocation(bad)
        assert model.allocation == before


def test_a_refused_budget_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(gfb.InfeasibleBudgetError):
        quick(budgets=[limited(limit=1.0)], run_folder=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_one_line_with_the_install_command(tmp_path: Path) -> None:
    program = written(
        tmp_path / "program.py",
        "from torch import nn, zeros\n"
        "from gfb_integrations.qonnx import export_qonnx\n"
        "def main(arguments):\n"
        "    export_qonnx(nn.Identity(), zeros(1, 2), 'model.onnx')\n",
    )
    blocked = (
        "import sys; sys.modules['qonnx'] = None\n"
        f"from gfb_brevitas.cli import app; app(['run', {str(program)!r}])"
    )
    ended = completed_python(blocked, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("MissingExtraError: Exporting to QONNX needs the package 'qonnx'")
    assert ended.stderr.endswith(f"{install_command('export')}\n") and ended.stderr.count("\n") == 1


# --- losses and metrics that are not numbers -----------------------------------------------------


def not_finite_where(is_bad: Callable[[nn.Module], bool]) -> Callable[[nn.Module, Any], Tensor]:
    return lambda model, batch: loss(model, batch) * (math.nan if is_bad(model) else 1.0)


def test_candidates_whose_loss_is_nan_lose() -> None:
    wide = not_finite_where(lambda model: not model.training and model.allocation["0.weight_quant"] > 3)
    result = quick(loss=wide, search=replace(QUICK, evaluations_per_step=40))
    assert sum(generation.non_finite for generation in result.history.generations) >= 3
    assert result.allocation["0.weight_quant"] <= 3
    assert all(row.feasible for row in result.costs)
    assert result.metric == accuracy(result.model)


def test_a_search_whose_losses_are_all_nan_keeps_a_feasible_allocation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = quick(loss=not_finite_where(lambda model: not model.training))
    assert all(g.non_finite == 4 and math.isnan(g.best_value) for g in result.history.generations)
    assert all(row.feasible for row in result.costs)
    assert result.metric == accuracy(result.model) > 0.25
    assert "4 of 4 losses are not finite" in caplog.text
    assert "No candidate has a finite loss" in caplog.text


def test_a_metric_that_is_nan_is_worse_than_any_number() -> None:
    values = iter([math.nan, 0.25, math.nan])
    search = replace(QUICK, epochs_per_round=2, choose_by="loss")
    result = quick(metric=lambda model: next(values), search=search)
    assert (result.metric, result.best_epoch) == (0.25, 2)


# --- what was done is not lost -------------------------------------------------------------------


class CallbackError(Exception):
    """An error of a user's own callback."""


class RaiseAtEpoch(gfb.Callback):
    """Raises after an epoch, once."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch(self, record: Any) -> None:
        if record.epoch == self.epoch:
            self.epoch = 0
            raise CallbackError("enough")


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Any, ...]:
    return comparable(run(name="run"))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that ended after its fourth epoch, in the second round."""
    with pytest.raises(CallbackError, match="enough"):
        run(run_folder=tmp_path / "run", callbacks=[RaiseAtEpoch(4)])
    return tmp_path / "run"


def test_a_callback_that_raises_ends_a_run_that_can_go_on(
    stopped: Path, undisturbed: tuple[Any, ...]
) -> None:
    assert comparable(run(run_folder=stopped, resume=True)) == undisturbed


def test_a_training_loss_that_is_nan_leaves_the_run_and_its_best_state(
    tmp_path: Path, undisturbed: tuple[Any, ...]
) -> None:
    folder, epochs = tmp_path / "run", RaiseAtEpoch(0)
    epochs.on_epoch = lambda record: setattr(epochs, "epoch", record.epoch)  # type: ignore[method-assign]
    diverging = not_finite_where(lambda model: model.training and epochs.epoch == 3)
    with pytest.raises(gfb.NonFiniteLossError) as raised:
        run(loss=diverging, run_folder=folder, callbacks=[epochs])
    message = str(raised.value)
    assert message.startswith("The training loss became nan in epoch 4, batch 1 (learning rate ")
    assert "Everything up to the end of epoch 3 is in" in message and "best.pt'" in message
    assert "Lower the learning rate" in message

    best = CheckpointStore(folder / "checkpoints").load_best()
    model = searchable()
    load_model_state(model, best.model)
    model.set_allocation(best.allocation)
    assert accuracy(model.eval()) == best.metric > 0.5

    assert comparable(run(run_folder=folder, resume=True)) == undisturbed


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "truncated":
        data = data[: len(data) // 2]
    else:
        weight = torch.load(path, weights_only=True)["content"]["model"]["model.0.weight"]
        data[data.index(weight.numpy().tobytes()) + 7] ^= 1  # one bit of the second value
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_costs_one_unit_of_work(
    stopped: Path, how: str, undisturbed: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    damage(stopped / "checkpoints" / "latest.pt", how)
    assert comparable(run(run_folder=stopped, resume=True)) == undisturbed
    assert "Going on from" in caplog.text and "previous.pt" in caplog.text


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
def test_without_a_good_checkpoint_nothing_is_trained_or_overwritten(stopped: Path, how: str) -> None:
    for name in ("latest.pt", "previous.pt"):
        damage(stopped / "checkpoints" / name, how)
    history = (stopped / "history.jsonl").read_bytes()
    what = "missing" if how == "missing" else "damaged"
    message = rf"latest\.pt' is {what}.*previous\.pt' is {what}.*start it anew"
    with pytest.raises(gfb.CheckpointError, match=message):
        run(run_folder=stopped, resume=True, loss=never)
    assert (stopped / "history.jsonl").read_bytes() == history
    assert CheckpointStore(stopped / "checkpoints").load_best().metric > 0.5


def test_a_folder_of_another_configuration_is_refused_and_goes_on_as_before(
    stopped: Path, undisturbed: tuple[Any, ...]
) -> None:
    with pytest.raises(
        gfb.CheckpointError, match=r"another one: search\.rounds was 2 and is 3\. Resume it with the same"
    ):
        run(run_folder=stopped, resume=True, loss=never, search=replace(SEARCH, rounds=3))
    with pytest.raises(gfb.ConfigurationError, match="holds a run already. Pass resume=True"):
        run(run_folder=stopped, loss=never)
    assert comparable(run(run_folder=stopped, resume=True)) == undisturbed


HOLD = """
import sys
from pathlib import Path
from gfb_brevitas.search.run_lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_on_a_folder_is_refused(stopped: Path, undisturbed: tuple[Any, ...]) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ForkedPython(HOLD, stopped / "run.lock", **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(
            gfb.CheckpointError, match=f"in use by another run .process {holder.pid}.*or use another folder"
        ):
            run(run_folder=stopped, resume=True, loss=never)
        holder.kill()
    assert comparable(run(run_folder=stopped, resume=True)) == undisturbed


@contextmanager
def largest_file(size_bytes: int) -> Any:
    """No file of this process may grow beyond a size: what a full disk looks like to the writer."""
    resource = pytest.importorskip("resource", reason="needs POSIX resource limits")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("name", "room"), [("checkpoints/best.pt", -1), ("history.jsonl", 10)])
def test_a_full_disk_stops_a_run_that_can_go_on(
    stopped: Path, name: str, room: int, undisturbed: tuple[Any, ...]
) -> None:
    size_bytes = (stopped / name).stat().st_size + room
    message = "' cannot be written: .* make room or repair the folder, then resume the run"
    with largest_file(size_bytes), pytest.raises(gfb.CheckpointError, match=message):
        run(run_folder=stopped, resume=True)
    assert comparable(run(run_folder=stopped, resume=True)) == undisturbed
