"""What people see of FINN: results as text, and one clear message where something is not as it should be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from gfb_brevitas.adapters import record_layers
from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_integrations.finn import CheckReport, FinnProcess, check, estimate, verify
from gfb_integrations.finn.cli import app
from gfb_integrations.finn.output_rule import outputs
from gfb_integrations.qonnx import export_qonnx
from tests.integrations.finn.patterns import BUILDS, FAILS, Pattern, conv, entry, head, plain, relu, trained

USERS_MODULE = """
import torch
from torch import nn
import brevitas.nn as qnn

class Holder:
    pass

class Returning(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.layers, self.make = layers(), make

    def forward(self, x):
        return self.make(self.layers(x))

def layers():
    return nn.Sequential(qnn.QuantIdentity(return_quant_tensor=True), qnn.QuantLinear(4, 3, bias=True))

def good(): return layers(), torch.rand(1, 4)
def wide(): return nn.Sequential(qnn.QuantIdentity(bit_width=12), nn.Linear(4, 3)), torch.rand(1, 4)
def fails(): raise RuntimeError("the user's own")
def takes(size): return good()
def number(): return 3
value = 3
"""


def finn_command(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, [str(a) for a in arguments])


def assert_refused(result: Result, *pieces: str) -> None:
    """It ended with a message and without a traceback of this project."""
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("Error: ")
    assert "gfb_" not in result.stderr.replace("gfb_integrations.qonnx.export_qonnx", "")
    for piece in pieces:
        assert piece in result.stderr


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    path = tmp_path / "usersmodule.py"
    path.write_text(USERS_MODULE, encoding="utf-8")
    yield path
    sys.modules.pop("usersmodule", None)


# --- check ---------------------------------------------------------------------------------------


def test_check_says_yes_in_one_line(users_module: Path) -> None:
    result = finn_command("check", "usersmodule:good")
    assert (result.exit_code, result.stdout) == (0, "4 layers: FINN builds it\n")


def test_check_lists_what_does_not_build(users_module: Path) -> None:
    result = finn_command("check", "usersmodule:wide")
    assert result.exit_code == 1 and "does NOT build" in result.stdout and "Its weights are" in result.stdout


@pytest.mark.parametrize(
    ("reference", "pieces"),
    [
        ("usersmodule:value", ("must be a function", "got 3")),
        ("usersmodule:number", ("must be a function", "got 3")),
        ("usersmodule:takes", ("called without arguments", "'size'")),
        ("usersmodule:fails", ("'usersmodule:fails' failed", "in fails", "RuntimeError: the user's own")),
        ("usersmodule:none", ("has no 'none'",)),
        ("nomodule:f", ("no module 'nomodule'",)),
    ],
)
def test_check_of_something_else(reference: str, pieces: tuple[str, ...], users_module: Path) -> None:
    assert_refused(finn_command("check", reference), *pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("def f(:\n    pass\n", ("line 1", "SyntaxError")),
        ("values = {}\nvalues['a']\n", ("line 2, in <module>", "KeyError: 'a'")),
        ("import no_such_package_of_mine\n", ("needs 'no_such_package_of_mine'",)),
    ],
)
def test_check_of_a_module_that_cannot_be_imported(
    text: str, pieces: tuple[str, ...], users_module: Path
) -> None:
    users_module.write_text(text, encoding="utf-8")
    assert_refused(finn_command("check", "usersmodule:f"), *pieces)


def test_results_are_readable_text(finn: FinnProcess, small_model: Path) -> None:
    assert str(CheckReport(findings=(), layers=4)) == "4 layers: FINN builds it"
    model, x = trained(FAILS["wide activations"])
    text = str(check(model, x[:1]))
    assert "NOT" in text.split("\n")[0] and "(refused): " in text
    found = estimate(small_model, board="Pynq-Z1", process=finn)
    assert str(found).startswith("Pynq-Z1 (xc7z020clg400-1), 100 MHz: ") and "MVAU_hls_0: " in str(found)
    text = str(verify(small_model, np.zeros((2, 3, 8, 8)), process=finn))
    assert text.startswith("2 samples: every stage computes the same\n  qonnx: exact")


class Returning(nn.Module):
    """Layers, and what is made of what they put out."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(entry(), conv(), relu(), head(144))
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.layers(x))


@pytest.mark.parametrize(
    ("model", "rules"),
    [
        (Returning(lambda y: None), ["no output"]),
        (Returning(lambda y: torch.ones(1)), ["no output"]),
        (Returning(lambda y: iter([y])), ["no output"]),
        (nn.Identity(), ["nothing computed"]),
        (Returning(lambda y: y), []),
        (Returning(lambda y: {"scores": y}), []),
    ],
)
def test_models_without_an_output_to_build(model: nn.Module, rules: list[str]) -> None:
    graph = record_layers(model, torch.rand(1, 3, 8, 8))
    assert [finding.rule for finding in outputs(graph)] == rules


# --- files that are no models --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no ONNX model"),
        (b"hello world " * 50, "is not an ONNX model"),
        (None, "is not an ONNX model"),
    ],
)
def test_files_that_are_no_model(
    content: bytes | None, message: str, small_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(small_model.read_bytes()[:2000] if content is None else content)
    assert_refused(finn_command("estimate", path), message)
    with pytest.raises(ExportError, match=message):
        verify(path, np.zeros((1, 3, 8, 8)))


# --- estimate ------------------------------------------------------------------------------------


def test_an_output_folder_that_cannot_be_made(small_model: Path) -> None:
    assert_refused(finn_command("estimate", small_model, "--output", small_model), "cannot be made")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": True}, "`fps` must be a finite number"),
        ({"fps": 10**400}, "`fps`"),
        ({"fps": 1e12}, "`fps` must be at most 100,000,000 at 100 MHz"),
        ({"clock_mhz": "100"}, "`clock_mhz`"),
        ({"clock_mhz": None}, "`clock_mhz`"),
        ({"board": None}, "`board` must be the name"),
        ({"board": 3}, "`board` must be the name"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], message: str, small_model: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        estimate(small_model, **{"board": "Pynq-Z1", **settings})


def test_numbers_of_numpy_and_other_names_of_boards(finn: FinnProcess, small_model: Path) -> None:
    usual = estimate(small_model, board="KV260_SOM", fps=3000, process=finn)
    rate: Any = np.int64(3000)
    assert estimate(small_model, board="kv260", fps=rate, process=finn) == usual
    assert estimate(small_model, board="V80", process=finn).board == "V80"  # FINN's alone
    found = verify(small_model, np.zeros((1, 3, 8, 8)), board="zcu104", process=finn)
    assert found.exact


def test_products_outside_the_fpga_are_said_first(finn: FinnProcess, tmp_path: Path) -> None:
    model, x = trained(FAILS["no input quantizer"])
    export_qonnx(model, x[:1], tmp_path / "partly.onnx")
    found = estimate(tmp_path / "partly.onnx", board="Pynq-Z1", process=finn)
    assert found.host_products == ("MatMul_0",) == tuple(found.to_dict()["host_products"])
    assert str(found).startswith("WARNING: FINN leaves products outside the FPGA")
    printed = finn_command("estimate", tmp_path / "partly.onnx").stdout
    assert printed.startswith("WARNING: ") and "MatMul_0" in printed.split("\n")[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's old exporter
def test_a_model_of_floats_is_no_estimate(finn: FinnProcess, tmp_path: Path) -> None:
    floats = Pattern(
        lambda: plain(
            first=nn.Identity(), product=nn.Conv2d(3, 4, 3), activation=nn.ReLU(), last=_float_head()
        )
    )
    model, x = trained(floats)
    torch.onnx.export(model, (x[:1],), tmp_path / "floats.onnx", dynamo=False)
    with pytest.raises(ExportError, match="all products outside the FPGA: MatMul_0"):
        estimate(tmp_path / "floats.onnx", board="Pynq-Z1", process=finn)


def _float_head() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"MVAU_hls_0": {"PE": "x"}}', "PE of MVAU_hls_0 must be a whole number from 1"),
        ('{"MVAU_hls_0": {"SIMD": 0}}', "SIMD of MVAU_hls_0"),
        ('{"MVAU_hls_0": {"PE": true}}', "PE of MVAU_hls_0"),
        ('{"ConvolutionInputGenerator_rtl_0": {"parallel_window": 2}}', "must be 0 or 1"),
        ('{"MVAU_hls_0": {"mem_mode": null}}', "must be a number, a text or a list"),
        ('{"Defaults": {"PE": 2}}', "Defaults takes a value and its operators"),
        ('{"Defaults": {"PE": [2]}}', "Defaults takes a value and its operators"),
        ('{"Defaults": {"PE": [2, [3]]}}', "Defaults takes a value and its operators"),
        ('{"Defaults": {"PE": [-2, ["MVAU_hls"]]}}', "PE of Defaults"),
        ('{"Defaults": {"PE": [2, ["nope"]]}}', "operators in its Defaults that the network has not: nope"),
    ],
)
def test_what_a_folding_file_may_not_say(
    content: str, message: str, finn: FinnProcess, small_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "folding.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        estimate(small_model, board="Pynq-Z1", folding_file=file, process=finn)


def test_defaults_of_a_folding_file_count(finn: FinnProcess, small_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "folding.json"
    file.write_text('{"Defaults": {"SIMD": [3, ["MVAU_hls"]]}}', encoding="utf-8")
    found = estimate(small_model, board="Pynq-Z1", folding_file=file, process=finn)
    assert {n.attributes["SIMD"] for n in found.nodes if n.kind == "MVAU_hls"} == {3}


# --- verify --------------------------------------------------------------------------------------

INPUTS = np.zeros((2, 3, 8, 8), dtype=np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.float32(3)}, "got a single number"),
        ({"inputs": np.array(["a", "b"])}, "must be real numbers"),
        ({"inputs": INPUTS + 1j}, "must be real numbers; got values of type complex64"),
        ({"inputs": np.full((2, 3, 8, 8), 1e39)}, "must be finite"),
        ({"inputs": INPUTS, "outputs": np.float32(1)}, "got a single number"),
        ({"inputs": INPUTS, "outputs": np.array(["a", "b"])}, "must be real numbers"),
        ({"inputs": INPUTS, "outputs": np.zeros((2, 7))}, r"(2, 5); they have (2, 7)"),
        ({"inputs": INPUTS, "outputs": np.zeros((2, 5, 1))}, r"(2, 5); they have (2, 5, 1)"),
        ({"pictures": INPUTS}, "it holds pictures"),
        ({}, "it holds nothing"),
    ],
)
def test_samples_that_are_none(
    arrays: dict[str, Any], message: str, small_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "samples.npz"
    np.savez(file, **arrays)
    assert_refused(finn_command("verify", small_model, file), message)


def test_files_that_hold_no_samples(small_model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", inputs=INPUTS)
    whole = (tmp_path / "samples.npz").read_bytes()
    for content in (b"", b"nothing", whole[:300], whole[:-30], whole[:40] + b"\xff" * 40 + whole[80:]):
        (tmp_path / "damaged.npz").write_bytes(content)
        assert_refused(finn_command("verify", small_model, tmp_path / "damaged.npz"), "NumPy arrays")
    np.save(tmp_path / "single.npy", INPUTS)
    assert_refused(finn_command("verify", small_model, tmp_path / "single.npy"), "np.savez")
    assert_refused(finn_command("verify", small_model, tmp_path / "none.npz"), "No such file")


@pytest.mark.parametrize("samples", [None, [[1], [1, 2]], "abc", {}])
def test_samples_of_other_kinds(samples: Any, small_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="Samples must"):
        verify(small_model, samples)


def test_samples_that_gradients_are_computed_for(finn: FinnProcess, small_model: Path) -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    model, _ = trained(BUILDS["plain"])
    assert verify(small_model, x, model=model, process=finn).exact
    nested: Any = x.tolist()
    assert verify(small_model, nested, process=finn).exact


@pytest.mark.filterwarnings("ignore:No quant bias cache found")
def test_a_bias_whose_input_has_no_scale_is_said_so() -> None:
    from brevitas.quant import Int32Bias

    model = nn.Sequential(qnn.QuantLinear(4, 3, bias=True, bias_quant=Int32Bias))
    with pytest.raises(Exception, match="put a QuantIdentity in front.*bias_quant=None"):
        check(model, torch.rand(1, 4))
    layer = nn.Sequential(qnn.QuantLinear(4, 3, bias=True, return_quant_tensor=True))
    with pytest.raises(Exception, match="put a QuantIdentity in front of it"):
        check(layer, torch.rand(1, 4))
