"""FINN's estimate of a run and its proof, from the run's folder, with FINN itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import gfb_brevitas as gfb
from gfb_brevitas.errors import CheckpointError, ExportError
from gfb_integrations import finn as finn_package
from gfb_integrations.finn import FinnEstimate, FinnProcess, FinnVerification, estimate_run, verify_run
from gfb_integrations.finn.folding import corresponding_nodes
from gfb_integrations.finn.runs import ExportedRun
from gfb_integrations.qonnx import export_qonnx
from gfb_integrations.report import write_report
from tests.core.dataflow.networks import plain
from tests.core.search import small_problem as problem
from tests.core.test_cli import gfb as command
from tests.integrations.finn.test_commands import assert_refused, finn_command

FPS = 20_000
IMAGES = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = (IMAGES.mean(dim=(1, 2, 3)) > 0.5).long()


@dataclass(frozen=True)
class Searched:
    """A run with its result and the file that was exported."""

    folder: Path
    result: gfb.SearchResult


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = gfb.fit(
        finn_package.make_searchable(plain(), IMAGES[:2]),
        loss=problem.loss,
        train_batches=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16),
        budgets=gfb.Budget.board("ZCU104", fps=FPS, clock_mhz=150.0, utilisation=0.1),
        metric=lambda model: float((model(IMAGES).argmax(dim=1) == LABELS).float().mean()),
        search=gfb.SearchConfig(rounds=1, steps_per_round=1, evaluations_per_step=12, epochs_per_round=1),
        training=gfb.TrainingConfig(optimizer="adam", learning_rate=1e-3),
        run_folder=folder,
    )
    export_qonnx(result.model, IMAGES[:1], folder / "model.qonnx.onnx")
    return Searched(folder, result)


@pytest.fixture
def folder(searched: Searched, tmp_path: Path) -> Path:
    """A copy of the run's folder."""
    return Path(shutil.copytree(searched.folder, tmp_path / "run"))


def test_the_estimate_is_of_what_the_search_counted(folder: Path, finn: FinnProcess) -> None:
    found = estimate_run(folder, process=finn)
    assert (found.board, found.clock_mhz, found.folded_by) == ("ZCU104", 150.0, "search")
    costs = gfb.RecordedRun.load(folder).layer_costs
    assert costs is not None
    for budget in costs.budgets:
        theirs = found.cost(budget.name)
        # The widths of thresholds follow from scales, which bit widths do not tell: a few percent of LUTs.
        assert theirs == (pytest.approx(budget.value, rel=0.05) if budget.name == "lut" else budget.value)
    assert found.fps >= FPS
    assert FinnEstimate.load(folder / "finn_estimate.json") == found
    assert set(json.loads((folder / "folding.json").read_text())) == {
        "Defaults",
        *(n.name for n in found.nodes),
    }

    # Layer by layer, too.
    layers = ExportedRun.of(folder).layers
    names = {
        n.name: layer.name for n, layer in zip(corresponding_nodes(layers, found.nodes), layers, strict=True)
    }
    assert dict(found.layers) == names
    memory = next(budget for budget in costs.budgets if budget.name == "bram_18k").layers
    for layer in memory:
        assert memory[layer] == sum(n.bram_18k for n in found.nodes if found.layers[n.name] == layer)


def test_what_is_given_counts_instead(folder: Path, finn: FinnProcess) -> None:
    own = estimate_run(folder, fps=5000, clock_mhz=100.0, process=finn)
    assert (own.folded_by, own.board, own.clock_mhz) == ("finn", "ZCU104", 100.0)
    assert own.fps >= 5000 and own.layers and not (folder / "folding.json").exists()
    file = folder / "mine.json"
    file.write_text(json.dumps({"Defaults": {}, "MVAU_hls_0": {"PE": 1, "SIMD": 1}}))
    assert estimate_run(folder, folding_file=file, process=finn).folded_by == "file"
    other = estimate_run(folder, standalone_thresholds=True, process=finn)
    assert other.folded_by == "finn" and other.standalone_thresholds and not other.layers
    assert other.fps >= FPS


def test_a_folder_of_before_gets_finns_own_folding(folder: Path, finn: FinnProcess) -> None:
    (folder / "layer_costs.json").unlink()
    found = estimate_run(folder, process=finn)
    assert (found.folded_by, found.board, found.clock_mhz) == ("finn", "ZCU104", 150.0)
    assert found.fps >= FPS


def test_finns_own_reports_are_kept(folder: Path, finn: FinnProcess, tmp_path: Path) -> None:
    found = estimate_run(folder, output=tmp_path / "kept", process=finn)
    reports = {
        file.name: json.loads(file.read_text()) for file in (tmp_path / "kept" / "report").glob("*.json")
    }
    assert reports["estimate_layer_resources.json"]["total"]["LUT"] == found.total("lut")
    assert reports["estimate_layer_cycles.json"] == {node.name: node.cycles for node in found.nodes}
    assert reports["estimate_network_performance.json"]["estimated_throughput_fps"] == pytest.approx(
        found.fps
    )


def test_the_proof_is_kept_and_the_report_shows_both(
    searched: Searched, folder: Path, finn: FinnProcess
) -> None:
    estimate_run(folder, process=finn)
    found = verify_run(folder, IMAGES[:4], model=searched.result.model, process=finn)
    assert found.exact and (found.compared_with, found.board) == ("PyTorch", "ZCU104")
    assert FinnVerification.load(folder / "finn_verification.json") == found
    page = " ".join(write_report(folder).read_text(encoding="utf-8").split())
    assert "Every stage of FINN&#39;s flow computes the same as PyTorch on 4 samples." in page
    assert "with the parallelism that the search counted with" in page
    # Outputs of another model are another result, which is kept as well.
    wrong = np.zeros((4, 10), dtype=np.float32)
    assert not verify_run(folder, IMAGES[:4], outputs=wrong, process=finn).exact
    assert not FinnVerification.load(folder / "finn_verification.json").exact
    page = write_report(folder).read_text(encoding="utf-8")
    assert "does not compute the same as the outputs that were given" in page


def test_the_commands_take_the_folder(folder: Path, finn: FinnProcess, tmp_path: Path) -> None:
    del finn
    result = finn_command("estimate", folder)
    assert result.exit_code == 0, result.stderr
    printed = result.stdout.replace("\n", " ")
    assert "ZCU104" in printed and "the search counted with, in folding.json" in printed
    assert "dsp: FINN " in printed and (folder / "finn_estimate.json").is_file()
    np.savez(tmp_path / "samples.npz", inputs=IMAGES[:2].numpy())
    result = finn_command("verify", folder, tmp_path / "samples.npz", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["compared_with"] == "the file"
    assert FinnVerification.load(folder / "finn_verification.json").samples == 2
    assert_refused(finn_command("verify", folder), "no run of a configuration file", "SAMPLES.NPZ")


def test_without_an_export_the_command_for_it_is_said(folder: Path, tmp_path: Path) -> None:
    (folder / "model.qonnx.onnx").unlink()
    assert_refused(finn_command("estimate", folder), "was not exported", f"gfb export {folder} --model")
    with pytest.raises(ExportError, match="was not exported"):
        verify_run(folder, IMAGES[:1])
    (folder / "run.yaml").write_text("")
    with pytest.raises(ExportError, match=r"gfb export \S+$"):
        estimate_run(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(ExportError, match="has not ended"):
        estimate_run(folder)
    assert_refused(finn_command("estimate", tmp_path), "holds no run")


def test_a_folder_that_says_nonsense_of_the_hardware(folder: Path) -> None:
    from gfb_brevitas.files import sealed

    file = folder / "layer_costs.json"
    document = json.loads(file.read_text())
    document["hardware"][0]["layers"][0].pop("pe")
    file.write_text(json.dumps(sealed(document)))
    with pytest.raises(CheckpointError, match=r"layer_costs\.json' is damaged: .*'pe'"):
        estimate_run(folder)


NETWORK = """\
import torch
from tests.core.dataflow.networks import plain
from tests.integrations.finn.test_runs import IMAGES, LABELS

def make():
    torch.manual_seed(0)
    return plain(), IMAGES[:2]

def train():
    return list(zip(IMAGES.split(16), LABELS.split(16)))
"""
SEARCH = """\
model: boards_network:make
loss: cross_entropy
train_batches: boards_network:train
validation_batches: boards_network:train
finn: true
export: true
budgets: [{board: ZCU104, fps: 20000, utilisation: 0.1}]
search: {rounds: 1, steps_per_round: 1, evaluations_per_step: 8, population_size: 4, epochs_per_round: 1}
run_folder: run
baselines: []
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "boards_network.py").write_text(NETWORK)
    (tmp_path / "search.yaml").write_text(SEARCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("boards_network", None)


def test_a_run_of_a_configuration_brings_its_own_model_and_samples(
    configured: Path, finn: FinnProcess
) -> None:
    del finn
    result = command("run", "search.yaml", "-q")
    assert result.exit_code == 0, result.output
    result = finn_command("verify", configured / "run")
    assert result.exit_code == 0, result.output
    found = FinnVerification.load("run/finn_verification.json")
    assert found.exact and (found.samples, found.compared_with) == (16, "PyTorch")
