from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gfb_brevitas.errors import ConfigurationError, EmptyDataError, ExportError, MissingExtraError
from gfb_integrations.finn import (
    FinnBuildError,
    FinnError,
    FinnProcess,
    estimate,
    finn_python,
    install_finn,
    verify,
)
from gfb_integrations.finn.environment import (
    PYTHON_VARIABLE,
    REQUIREMENTS,
    _replacing_folder,
    default_prefix,
    python_of,
)
from gfb_integrations.finn.estimate import UNKNOWN_LOGIC, logic_of
from gfb_integrations.finn.formulas import price
from gfb_integrations.qonnx import export_qonnx
from tests.forked_python import completed_python
from tests.integrations.finn.patterns import BUILDS, FAILS, trained

ROOT = Path(__file__).parents[3]


def test_the_estimate_of_a_small_model(finn: FinnProcess, small_model: Path, tmp_path: Path) -> None:
    found = estimate(small_model, board="Pynq-Z1", fps=2000, process=finn, output=tmp_path / "out")
    kinds = [node.kind for node in found.nodes]
    assert kinds[:3] == ["Thresholding_rtl", "ConvolutionInputGenerator_rtl", "MVAU_hls"]
    assert found.part == "xc7z020clg400-1"
    assert found.fps >= 2000 and found.max_cycles == max(node.cycles for node in found.nodes)
    assert found.total("lut") == sum(node.lut for node in found.nodes) > 300
    assert found.latency_us == found.critical_path_cycles / 100
    assert (tmp_path / "out" / "model.onnx").is_file()
    product = found.nodes[2]
    assert (product.attributes["MW"], product.attributes["MH"]) == (27, 4)
    assert product.inputs == (found.nodes[1].name,)
    assert json.loads(json.dumps(found.to_dict()))["lut"] == found.total("lut")


def test_look_up_tables_that_finn_does_not_know_are_not_free(finn: FinnProcess, tmp_path: Path) -> None:
    model, x = trained(BUILDS["padding and stride"])
    export_qonnx(model, x[:1], tmp_path / "padded.onnx")
    found = estimate(tmp_path / "padded.onnx", board="Pynq-Z1", process=finn)
    logic = {node.kind: node.logic for node in found.nodes}
    assert logic["FMPadding_rtl"] == "unknown" and logic["ConvolutionInputGenerator_rtl"] == "counted"
    assert "cycles, ? LUT" in str(found) and UNKNOWN_LOGIC in str(found)
    assert [node["logic"] for node in found.to_dict()["nodes"]] == [node.logic for node in found.nodes]
    assert logic_of("MVAU_rtl", 0) == "in DSPs" and logic_of("Reshape", 0) == "free"


def test_what_stays_outside_the_fpga_is_named(finn: FinnProcess, small_model: Path, tmp_path: Path) -> None:
    assert estimate(small_model, board="Pynq-Z1", process=finn).host_nodes == ("Transpose_0",)
    model, x = trained(FAILS["no input quantizer"])
    export_qonnx(model, x[:1], tmp_path / "floats.onnx")
    found = estimate(tmp_path / "floats.onnx", board="Pynq-Z1", process=finn)
    assert "MatMul_0" in found.host_nodes
    assert not set(found.host_nodes) & {node.name for node in found.nodes}


def test_a_higher_frame_rate_takes_more(finn: FinnProcess, small_model: Path) -> None:
    slow, fast = (estimate(small_model, board="Pynq-Z1", fps=fps, process=finn) for fps in (1000, 100_000))
    assert fast.max_cycles < slow.max_cycles and fast.total("lut") > slow.total("lut")


def test_finns_folding_file_gives_its_estimate_again(
    finn: FinnProcess, small_model: Path, tmp_path: Path
) -> None:
    first = estimate(small_model, board="Pynq-Z1", fps=50_000, process=finn)
    file = tmp_path / "folding.json"
    file.write_text(json.dumps({"Defaults": {}, **first.folding()}), encoding="utf-8")
    again = estimate(small_model, board="Pynq-Z1", folding_file=file, process=finn)
    assert [(n.name, n.cycles, n.lut) for n in again.nodes] == [
        (n.name, n.cycles, n.lut) for n in first.nodes
    ]


@pytest.mark.parametrize("standalone", [False, True], ids=["fused", "standalone"])
@pytest.mark.parametrize("name", ["residual", "depthwise", "mixed widths", "truncated average", "eight bits"])
def test_the_formulas_give_finns_numbers(
    name: str, standalone: bool, finn: FinnProcess, tmp_path: Path
) -> None:
    model, x = trained(BUILDS[name])
    path = tmp_path / "model.onnx"
    export_qonnx(model, x[:1], path)
    for board, fps in (("Pynq-Z1", 1000), ("ZCU104", 100_000)):
        found = estimate(path, board=board, fps=fps, standalone_thresholds=standalone, process=finn)
        differing = {node.name: price(node, found.part).differs_from(node) for node in found.nodes}
        assert not any(differing.values()), differing


def test_what_cannot_be_estimated(finn: FinnProcess, small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no file"):
        estimate(tmp_path / "none.onnx", board="Pynq-Z1", process=finn)
    with pytest.raises(FinnBuildError, match="There are: .*Pynq-Z1"):
        estimate(small_model, board="Arty", process=finn)
    for setting in ({"fps": 0}, {"clock_mhz": float("nan")}):
        with pytest.raises(ConfigurationError, match="above zero"):
            estimate(small_model, board="Pynq-Z1", process=finn, **setting)  # type: ignore[arg-type]
    # The process goes on after all that.
    assert estimate(small_model, board="Pynq-Z1", process=finn).nodes


def test_what_cannot_be_verified(finn: FinnProcess, small_model: Path) -> None:
    x = np.zeros((2, 3, 8, 8), dtype=np.float32)
    with pytest.raises(EmptyDataError):
        verify(small_model, x[:0], process=finn)
    with pytest.raises(FinnBuildError, match=r"\(1, 3, 8, 8\)"):
        verify(small_model, x[:, :2], process=finn)
    with pytest.raises(ConfigurationError, match="as many outputs"):
        verify(small_model, x, outputs=np.zeros((3, 5)), process=finn)
    found = verify(small_model, x, outputs=np.ones((2, 5), dtype=np.float32), process=finn)
    assert not found.exact and found.first_difference is not None and found.first_difference.stage == "qonnx"


def test_a_process_that_dies_is_an_error_with_its_last_words(small_model: Path, finn: FinnProcess) -> None:
    del finn  # skips where there is no FINN
    with FinnProcess() as process:
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
        with pytest.raises(FinnError, match="ended"):
            estimate(small_model, board="Pynq-Z1", process=process)
        folder = process.folder
    assert not folder.exists()


def test_a_request_that_is_none_leaves_the_process_as_it_is(finn: FinnProcess, small_model: Path) -> None:
    with pytest.raises(FinnError, match="unknown"):
        finn.call("unknown")
    with pytest.raises(FinnError, match="unexpected keyword argument"):
        finn.call("verify", surprise=1)
    assert estimate(small_model, board="Pynq-Z1", process=finn).nodes


def test_nothing_is_left_of_a_process_that_nobody_closed(finn: FinnProcess) -> None:
    del finn
    program = "from gfb_integrations.finn import FinnProcess; p = FinnProcess(); print(p.folder)"
    done = completed_python(program)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_a_time_limit(small_model: Path, finn: FinnProcess) -> None:
    del finn
    with FinnProcess() as process:
        with pytest.raises(FinnError, match=r"longer than 0\.01 seconds"):
            estimate(small_model, board="Pynq-Z1", process=process, timeout_s=0.01)
        with pytest.raises(FinnError, match="ended"):
            estimate(small_model, board="Pynq-Z1", process=process)


def test_processes_side_by_side_do_not_disturb_each_other(small_model: Path, finn: FinnProcess) -> None:
    expected = estimate(small_model, board="Pynq-Z1", fps=5000, process=finn)
    found = []

    def run() -> None:
        found.append(estimate(small_model, board="Pynq-Z1", fps=5000))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.nodes for e in found] == [expected.nodes] * 2


def test_the_interpreter_that_is_named_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    assert finn_python() == Path(sys.executable)
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=PYTHON_VARIABLE):
        finn_python()


def test_without_finn_the_command_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingExtraError, match="gfb finn install"):
        finn_python()
    managed = python_of(default_prefix())
    managed.parent.mkdir(parents=True)
    managed.touch()
    assert finn_python() == managed


def test_an_environment_is_not_made_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigurationError, match="holds something else"):
        install_finn(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "one object per layer"),
        ('{"Defaults": {}, "MVAU_hls_7": {"PE": 2}}', r"has not: MVAU_hls_7\. It has: .*MVAU_hls_0"),
    ],
)
def test_a_folding_file_of_something_else(
    content: str, message: str, finn: FinnProcess, small_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "folding.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        estimate(small_model, board="Pynq-Z1", folding_file=file, process=finn)


def test_a_folding_that_does_not_divide_a_layer(finn: FinnProcess, small_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "folding.json"
    file.write_text('{"Defaults": {}, "MVAU_hls_0": {"PE": 3}}', encoding="utf-8")
    with pytest.raises(FinnBuildError, match="PE of the folding file must divide"):
        estimate(small_model, board="Pynq-Z1", folding_file=file, process=finn)


def test_the_first_of_two_installations_stays(tmp_path: Path) -> None:
    prefix = tmp_path / "finn"
    prefix.mkdir()
    first = python_of(prefix)
    with _replacing_folder(prefix) as folder:
        python_of(folder).parent.mkdir()
        python_of(folder).touch()
        first.parent.mkdir()
        first.write_text("the first one's", encoding="utf-8")
    assert first.read_text(encoding="utf-8") == "the first one's"
    assert list(tmp_path.iterdir()) == [prefix]


def test_every_requirement_is_pinned() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert not any(line.startswith(("torch", "brevitas")) for line in lines)


def test_the_worker_imports_nothing_of_this_project() -> None:
    worker = REQUIREMENTS.with_name("worker")
    for file in worker.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "import gfb" not in text and "from gfb" not in text and "import torch" not in text, file


def test_the_command_line(finn: FinnProcess, small_model: Path, tmp_path: Path) -> None:
    del finn
    gfb = [str(Path(sys.executable).with_name("gfb")), "finn"]
    done = subprocess.run(
        [*gfb, "estimate", str(small_model), "--fps", "2000", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fps"] >= 2000
    assert [row["lut"] for row in found["formulas"]] == [node["lut"] for node in found["nodes"]]
    samples = tmp_path / "samples.npz"
    np.savez(samples, inputs=np.zeros((1, 3, 8, 8), dtype=np.float32))
    done = subprocess.run([*gfb, "verify", str(small_model), str(samples)], capture_output=True, text=True)
    assert done.returncode == 0 and "every stage computes the same as the file" in done.stdout
    (tmp_path / "exported_model.py").write_text(
        "from tests.integrations.finn.patterns import BUILDS, trained\n"
        "def right():\n    return trained(BUILDS['plain'])\n"
        "def another():\n    return trained(BUILDS['plain'], seed=1)[0]\n"
    )
    np.savez(samples, inputs=np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32))
    verifying = [*gfb, "verify", str(small_model), str(samples), "--model"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run(
        [*verifying, "exported_model:another"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1 and "NOT the same as PyTorch" in done.stdout
    done = subprocess.run(
        [*verifying, "exported_model:right"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and "the same as PyTorch" in done.stdout, done.stdout + done.stderr
    samples.write_bytes(b"nothing")
    done = subprocess.run([*gfb, "verify", str(small_model), str(samples)], capture_output=True, text=True)
    assert done.returncode == 1 and "is not a file of NumPy arrays" in done.stderr
