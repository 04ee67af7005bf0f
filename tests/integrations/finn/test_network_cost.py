"""Costs from bit widths alone against FINN's estimates of the exported models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gfb_brevitas as gfb
from gfb_brevitas.dataflow import Accelerator, Target, folded_layers
from gfb_brevitas.errors import ConfigurationError
from gfb_integrations.finn import FinnEstimate, FinnProcess, estimate, folding_for
from gfb_integrations.finn.folding import corresponding_nodes
from gfb_integrations.qonnx import export_qonnx
from tests.core.dataflow.networks import Residual, perceptron, plain, searchable
from tests.integrations.finn.patterns import BUILDS, Pattern, trained

NETWORKS: dict[str, Any] = {"plain": plain, "residual": Residual, "perceptron": perceptron}
FPS = 30_000.0

Case = tuple[gfb.SearchableModel, Path]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A searchable network, and its file."""
    network = searchable(NETWORKS[request.param]())
    path = tmp_path_factory.mktemp("finn") / "model.onnx"
    export_qonnx(network, torch.zeros(1, 3, 8, 8), path)
    return network, path


def bits_of(network: gfb.SearchableModel) -> Any:
    return network.space.bits(network.allocation)


def require_equal(accelerator: Accelerator, bits: Any, found: FinnEstimate, *, lut: float) -> None:
    """The same layers with the same cycles and memories, and LUTs but for what FINN narrows by values."""
    nodes = corresponding_nodes(folded_layers(accelerator, bits), found.nodes)
    cost = accelerator.cost(bits[None])
    assert cost.layer_cycles[0].tolist() == [node.cycles for node in nodes]
    assert cost.latency_cycles[0] == found.critical_path_cycles
    for name in ("bram_18k", "uram", "dsp"):
        assert getattr(cost.resources, name)[0] == found.total(name)
    assert cost.resources.lut[0] == pytest.approx(found.total("lut"), rel=lut)


def test_finns_estimate_follows_from_the_widths_and_so_does_that_of_another_folding(
    case: Case, finn: FinnProcess, tmp_path: Path
) -> None:
    network, path = case
    found = estimate(path, board="Pynq-Z1", fps=FPS, process=finn)
    theirs = Accelerator.of(network.profile, Target(board="Pynq-Z1", fps=FPS, folding="finn"))
    require_equal(theirs, bits_of(network), found, lut=0.015)

    ours = Accelerator.of(network.profile, Target(board="Pynq-Z1", fps=FPS, folding="cheapest"))
    file = tmp_path / "folding.json"
    file.write_text(json.dumps(folding_for(ours, bits_of(network), found)), encoding="utf-8")
    again = estimate(path, board="Pynq-Z1", folding_file=file, process=finn)
    require_equal(ours, bits_of(network), again, lut=0.015)
    assert again.fps >= FPS


def test_standalone_thresholds_are_at_most_as_wide_as_their_inputs(case: Case, finn: FinnProcess) -> None:
    network, path = case
    found = estimate(path, board="Pynq-Z1", fps=FPS, standalone_thresholds=True, process=finn)
    target = Target(board="Pynq-Z1", fps=FPS, standalone_thresholds=True, folding="finn")
    require_equal(Accelerator.of(network.profile, target), bits_of(network), found, lut=0.05)


@pytest.mark.parametrize(
    "name",
    [
        *("rectangle", "padded maximum", "convolution last", "bipolar", "one channel", "one row"),
        *("one channel, one by one", "flattened at the output", "image flattened at the output"),
        *("norm flattened at the output", "quantized and flattened at the output"),
    ],
)
def test_the_layers_are_finns(name: str, finn: FinnProcess, tmp_path: Path) -> None:
    pattern: Pattern = BUILDS[name]
    model, x = trained(pattern)
    path = tmp_path / "model.onnx"
    export_qonnx(model, x[:1], path)
    network = gfb.make_searchable(model, x[:1])
    found = estimate(path, board="ZCU104", fps=FPS, process=finn)
    target = Target(board="ZCU104", fps=FPS, folding="finn")
    require_equal(Accelerator.of(network.profile, target), bits_of(network), found, lut=0.01)


def test_a_folding_for_another_network_is_refused(finn: FinnProcess, small_model: Path) -> None:
    network = searchable(plain())
    other = estimate(small_model, board="Pynq-Z1", process=finn)
    accelerator = Accelerator.of(network.profile, Target(board="Pynq-Z1", fps=FPS))
    with pytest.raises(ConfigurationError, match="not of this network"):
        folding_for(accelerator, bits_of(network), other)
