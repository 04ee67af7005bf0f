"""Every example runs at its small size, as a user runs it, and leaves what it promises.

Examples that need data from elsewhere run where the environment variable GFB_DATA names its folder.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gfb_brevitas.extras import install_command
from tests.core.distributed.processes import free_port
from tests.forked_python import ForkedPython

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS_DATA = {"fashion_mnist"}
PNG = b"\x89PNG\r\n\x1a\n"
COMMAND = "from gfb_brevitas.cli import app; app()"


def has_main(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if has_main(path))


def started(folder: Path, name: str, *arguments: str, blocked: str = "") -> ForkedPython:
    """Start ``gfb run examples/NAME``, in a folder of its own, without one of the packages."""
    command = f"import sys; sys.modules[{blocked!r}] = None; {COMMAND}" if blocked else COMMAND
    return ForkedPython(
        command,
        *("run", EXAMPLES / name, *arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )


def ended(process: ForkedPython) -> tuple[str, str]:
    try:
        return process.communicate(timeout=300)
    finally:
        process.kill()


def completed(folder: Path, name: str, *arguments: str) -> str:
    """What an example prints until it ends well."""
    process = started(folder, name, *arguments)
    output, errors = ended(process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output


@pytest.fixture(scope="session")
def quick_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Folder and output of the examples that were run so far."""
    return {}


@pytest.fixture
def quick(quick_runs: dict[str, tuple[Path, str]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run an example at its small size, once."""

    def run(name: str) -> tuple[Path, str]:
        if name not in quick_runs:
            arguments = ["--quick"]
            if name in NEEDS_DATA:
                data = os.environ.get("GFB_DATA")
                if not data:
                    pytest.skip("GFB_DATA does not name a folder with the data")
                arguments += ["--data", str(Path(data).resolve())]
            folder = tmp_path_factory.mktemp(name)
            quick_runs[name] = folder, completed(folder, name, *arguments)
        return quick_runs[name]

    return run


def test_the_examples_are_found() -> None:
    assert {"digits", "float_model", "laplace_clipping"} <= set(NAMES)
    assert "experiment" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name: str, quick: Any) -> None:
    folder, output = quick(name)
    sentences = ("Candidates are evaluated by", "warning: ")  # a log has a line for each
    lines = [line for line in output.splitlines() if not any(s in line for s in sentences)]
    assert max(map(len, lines)) <= 80 + len(str(folder))
    assert "nan" not in output


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_a_comparison_writes_a_feasible_and_verified_result(name: str, quick: Any) -> None:
    folder, output = quick(name)
    folder = folder / "runs" / name
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 <= summary["accuracy"] <= 1 and 0 <= summary["uniform_accuracy"] <= 1
    assert summary["weight_bits_ratio"] <= 0.9 + 1e-9  # the budget of paper_budgets
    assert summary["feasible"] is True and all(cost["feasible"] for cost in summary["costs"])
    assert summary["mean_activation_bits"] <= next(
        cost["limit"] for cost in summary["costs"] if cost["name"] == "mean_activation_bits"
    )
    assert summary["qonnx_argmax_agreement"] == 1 and summary["qonnx_max_abs_diff"] < 1e-3
    assert summary["seconds"] > 0
    allocation = json.loads((folder / "allocation.json").read_text())["bits"]
    assert summary["allocation"] == allocation and set(allocation.values()) <= set(range(1, 9))
    assert (folder / "model.qonnx.onnx").stat().st_size > 0
    searched = summary["comparison"][-1]
    assert searched["allocation"] == allocation and searched["accuracy"] == summary["accuracy"]
    assert f"{summary['accuracy']:.2%}" in output and f"{summary['uniform_accuracy']:.2%}" in output


def test_digits_learns_at_its_small_size_already(quick: Any) -> None:
    folder, _ = quick("digits")
    summary = json.loads((folder / "runs" / "digits" / "summary.json").read_text())
    assert summary["accuracy"] > 0.6


def test_the_picture_and_the_line_of_laplace_samples(quick: Any) -> None:
    folder, output = quick("laplace_clipping")
    assert (folder / "laplace_clipping.png").read_bytes().startswith(PNG)
    found = re.search(r"R\^2 = ([\d.]+)", output)
    assert found is not None and float(found[1]) > 0.99
    assert [line.split()[1] for line in output.splitlines() if re.match(r"│ +\d", line)] == list("12345678")


def test_the_picture_needs_matplotlib_and_says_so_after_the_numbers(tmp_path: Path) -> None:
    process = started(tmp_path, "laplace_clipping", "--quick", blocked="matplotlib")
    output, errors = ended(process)
    assert process.returncode == 1 and "R^2 = " in output
    assert errors.startswith("MissingExtraError: The picture needs the package 'matplotlib'")
    assert errors.endswith(f"{install_command('plots')}\n") and errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_float_model_is_searched(quick: Any) -> None:
    _, output = quick("float_model")
    assert re.search(r"^float: \d+\.\d\d% of the test images$", output, re.MULTILINE)
    assert "add_quant.act_quant" in output and "one width: " in output
    found = re.search(r"^searched: (\d+\.\d\d)% of the test images$", output, re.MULTILINE)
    assert found is not None and float(found[1]) > 60


def test_the_fpga_story_fits_the_board_and_finn_agrees(quick: Any) -> None:
    folder, output = quick("fpga")
    folder = folder / "runs" / "fpga"
    story = json.loads((folder / "fpga.json").read_text())
    searched = story["outcomes"][-1]
    assert searched["name"] == "searched" and searched["feasible"] and searched["fps"] >= 30_000
    assert searched["lut"] <= 0.15 * 53_200 and set(searched["allocation"].values()) <= set(range(2, 9))
    assert (folder / "fpga.png").read_bytes().startswith(PNG)
    assert f"{searched['test']:.2%}" in output and story["export_max_abs_diff"] < 1e-3
    if not os.environ.get("GFB_FINN_PYTHON"):
        assert "gfb finn install" in story["finn"]
        return
    assert story["finn_exact"] and not any(story["finn_largest_difference_in_steps"].values())
    assert story["finn_fps"] == searched["fps"]
    assert (story["finn_bram_18k"], story["finn_dsp"]) == (searched["bram_18k"], searched["dsp"])
    assert story["finn_lut"] == pytest.approx(searched["lut"], rel=0.03)
    assert set(json.loads((folder / "folding.json").read_text())) > {"Defaults"}


OWN_TRAINING = ["accelerate_training", "lightning_training"]


@pytest.mark.parametrize("name", OWN_TRAINING)
def test_own_training_epochs_learn_and_keep_the_budgets(name: str, quick: Any) -> None:
    folder, output = quick(name)
    summary = json.loads((folder / "runs" / name / "summary.json").read_text())
    assert all(cost["feasible"] for cost in summary["costs"]) and summary["metric"] > 0.8
    records = (folder / "runs" / name / "history.jsonl").read_text().splitlines()
    epochs = [record for record in map(json.loads, records) if record["kind"] == "epoch"]
    rates = [epoch["learning_rate"] for epoch in epochs]
    assert rates[0] == 0.002 and rates == sorted(rates, reverse=True) and rates[-1] < 2e-4
    found = re.search(r"^searched: (\d+\.\d\d)% of the test images$", output, re.MULTILINE)
    assert found is not None and float(found[1]) > 80
    assert not any((folder / left).exists() for left in ("lightning_logs", "checkpoints"))


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another signal there")
def test_lightning_interrupted_and_run_again_ends_as_if_it_had_not_been(quick: Any, tmp_path: Path) -> None:
    """Lightning turns Ctrl-C into SystemExit; the example turns it back."""
    name = "lightning_training"
    process = started(tmp_path, name, "--quick")
    history = tmp_path / "runs" / name / "history.jsonl"
    # An epoch follows the first step of the search.
    while not (history.exists() and '"kind":"step"' in history.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = ended(process)
    assert process.returncode == 130
    assert errors == "Interrupted. Run the same command again to go on where it stopped.\n"

    assert completed(tmp_path, name, "--quick").startswith("search: resumed after ")
    folder, _ = quick(name)
    undisturbed, resumed = (
        json.loads((path / "runs" / name / "summary.json").read_text()) for path in (folder, tmp_path)
    )
    for key in ("allocation", "metric", "best_epoch", "evaluations", "costs"):
        assert resumed[key] == undisturbed[key], key


def test_accelerate_shares_the_training_among_processes(quick: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    command += [str(EXAMPLES / "accelerate_training.py"), "--quick"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("% of the test images") == 1
    alone, _ = quick("accelerate_training")
    losses = []
    for folder in (alone, tmp_path):
        records = (folder / "runs" / "accelerate_training" / "history.jsonl").read_text().splitlines()
        losses.append([r["train_loss"] for r in map(json.loads, records) if r["kind"] == "epoch"])
    # Half as many steps, on twice as many samples each.
    assert len(losses[0]) == len(losses[1]) and losses[1][0] > losses[0][0] + 0.1
    assert losses[1][3] < 0.5 * losses[1][0]


@pytest.mark.parametrize("name", OWN_TRAINING)
def test_own_training_epochs_without_the_package(name: str, tmp_path: Path) -> None:
    package = name.removesuffix("_training")
    process = started(tmp_path, name, "--quick", blocked=package)
    _, errors = ended(process)
    assert process.returncode == 1
    assert errors.startswith(f"MissingExtraError: This example needs the package '{package}'")
    assert re.search(rf"pip install '{package}>=[\d.]+'\n$", errors) and errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another signal there")
def test_digits_interrupted_and_run_again_ends_as_if_it_had_not_been(quick: Any, tmp_path: Path) -> None:
    process = started(tmp_path, "digits", "--quick")
    candidates = tmp_path / "runs" / "digits" / "generations" / "round-02" / "step-01.jsonl"
    while not (candidates.exists() and len(candidates.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = ended(process)
    assert process.returncode == 130
    assert errors == "Interrupted. Run the same command again to go on where it stopped.\n"
    assert not (tmp_path / "runs" / "digits" / "summary.json").exists()

    output = completed(tmp_path, "digits", "--quick")
    assert output.startswith("search: resumed after ")
    folder, _ = quick("digits")
    undisturbed, resumed = (
        json.loads((path / "runs" / "digits" / "summary.json").read_text()) for path in (folder, tmp_path)
    )
    for key in ("allocation", "metric", "best_epoch", "evaluations", "accuracy", "uniform_accuracy", "costs"):
        assert resumed[key] == undisturbed[key], key
