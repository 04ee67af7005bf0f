"""What the check says of small models, and that FINN does to them what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.errors import ExportError
from gfb_integrations.finn import (
    FinnBuildError,
    FinnCheckError,
    FinnProcess,
    check,
    estimate,
    verify,
)
from gfb_integrations.qonnx import export_qonnx
from tests.integrations.finn.patterns import BUILDS, FAILS, FLOATS, Branches, entry, relu, trained

UNFAITHFUL = {
    "padded bipolar": "streamlined",
    "bipolar, pooled, then padded": "streamlined",
    "bipolar then four bits": "minimised widths",
    "bipolar average": "finn dialect",
    "average to more bits than its sum": "finn dialect",
    "average of nine narrow values": "finn dialect",
    "activation rounded down": "finn dialect",
    "input rounded to zero": "finn dialect",
    "24-bit weights": "streamlined",
}
STANDALONE = {"bipolar sum": "out_scale must be 1"}  # fused, it is wrong at some widths only
OFF_THE_FPGA = ("no input quantizer",)
NOT_EXPORTED = {
    "branches of two quantizers": "Scaling factors are different",
    "1-bit integer activations": "1 bit",
}
NOT_EXECUTED = {
    "ceil pooling": "cannot reshape",
    "dilated pooling": "cannot reshape",
    "linear layer over a sequence": "Threshold",
    "window on one pixel": "Unexpected kernel shape",
}


@pytest.mark.parametrize("name", BUILDS)
def test_nothing_is_found_in_what_builds(name: str) -> None:
    model, x = trained(BUILDS[name])
    report = check(model, x[:1])
    assert report.builds and not report.findings
    report.require()


@pytest.mark.parametrize("name", FAILS)
def test_what_does_not_build_is_found(name: str) -> None:
    model, x = trained(FAILS[name])
    report = check(model, x[:1])
    assert not report.builds
    assert FAILS[name].rule in {finding.rule for finding in report.findings}
    with pytest.raises(FinnCheckError, match="FINN does not build this model") as caught:
        report.require()
    for finding in caught.value.findings:
        assert finding.layer in str(caught.value) and finding.advice in str(caught.value)


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_pointed_out_but_build(name: str) -> None:
    model, x = trained(FLOATS[name])
    report = check(model, x[:1])
    assert report.builds
    assert [(f.rule, f.severity) for f in report.findings] == [(FLOATS[name].rule, "in floats")]


@pytest.mark.parametrize("name", [*BUILDS, *FLOATS])
def test_finn_builds_it_and_computes_the_same(name: str, finn: FinnProcess, tmp_path: Path) -> None:
    model, x = trained({**BUILDS, **FLOATS}[name])
    path = tmp_path / "model.onnx"
    export_qonnx(model, x[:1], path)
    assert estimate(path, board="Pynq-Z1", fps=1000, process=finn).nodes
    found = verify(path, x, model=model, process=finn)
    assert found.exact, found.stages


@pytest.mark.parametrize("name", FAILS)
def test_finn_does_what_the_check_says(name: str, finn: FinnProcess, tmp_path: Path) -> None:
    model, x = trained(FAILS[name])
    path = tmp_path / "model.onnx"
    if name in NOT_EXPORTED:
        with pytest.raises(ExportError, match=NOT_EXPORTED[name]):
            export_qonnx(model, x[:1], path)
        return
    export_qonnx(model, x[:1], path)
    if name in UNFAITHFUL:
        found = verify(path, x, model=model, process=finn)
        assert not found.exact
        assert found.first_difference is not None
        assert found.first_difference.stage == UNFAITHFUL[name]
    elif name in STANDALONE:
        with pytest.raises(FinnBuildError, match=STANDALONE[name]):
            estimate(path, board="Pynq-Z1", standalone_thresholds=True, process=finn)
    elif name in OFF_THE_FPGA:
        kinds = [node.kind for node in estimate(path, board="Pynq-Z1", process=finn).nodes]
        assert not any(kind.startswith("ConvolutionInputGenerator") for kind in kinds)
    elif name in NOT_EXECUTED:
        with pytest.raises(FinnBuildError, match=NOT_EXECUTED[name]):
            verify(path, x, model=model, process=finn)
    else:
        with pytest.raises(FinnBuildError) as caught:
            estimate(path, board="Pynq-Z1", fps=1000, process=finn)
        assert caught.value.stage and caught.value.reason


def test_what_only_standalone_thresholds_cannot_do(finn: FinnProcess, tmp_path: Path) -> None:
    model, x = trained(BUILDS["bipolar"])
    assert check(model, x[:1]).builds
    report = check(model, x[:1], standalone_thresholds=True)
    assert [finding.rule for finding in report.findings] == ["bipolar thresholds"]
    export_qonnx(model, x[:1], tmp_path / "model.onnx")
    with pytest.raises(FinnBuildError, match="out_scale must be 1"):
        estimate(tmp_path / "model.onnx", board="Pynq-Z1", standalone_thresholds=True, process=finn)


def test_a_searchable_model_is_checked_as_the_model_within() -> None:
    model, x = trained(FAILS["wide activations"])
    searchable = gfb.make_searchable(model, x[:1], bits=(2, 12))
    assert [finding.rule for finding in check(searchable, x[:1]).findings] == ["activation width"]


def test_every_problem_of_a_model_is_found_in_the_order_of_the_layers() -> None:
    model = Branches(entry(12), entry(4), relu(9))
    rules = [finding.rule for finding in check(model, torch.rand(1, 3, 8, 8)).findings]
    assert rules == ["activation width", "shared quantizer", "activation width"]


def test_the_model_stays_as_it_is() -> None:
    model, x = trained(BUILDS["residual"])
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check(model, x[:1])
    assert model.training and all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    assert isinstance(model, nn.Module)
