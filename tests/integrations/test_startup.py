"""Commands of the integrations that need no PyTorch load none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.search.small_problem import run
from tests.core.test_startup import started

FINN = ("install", "estimate", "verify", "check")


@pytest.mark.parametrize(
    "arguments",
    [["finn", "--help"], ["mlflow", "--help"], ["mlflow", "deliver", "--help"]]
    + [["finn", name, "--help"] for name in FINN],
    ids=" ".join,
)
def test_help(arguments: list[str]) -> None:
    assert started(*arguments)[::2] == (0, set())


def test_a_wrong_place() -> None:
    status, said, heavy = started("finn", "estimate", "nowhere.onnx")
    assert status == 1 and "torch" not in heavy and "nowhere.onnx" in said


def test_a_report(tmp_path: Path) -> None:
    run(run_folder=tmp_path / "run")
    status, said, heavy = started("report", tmp_path / "run")
    assert (status, heavy) == (0, set()) and said.strip().endswith("report.html")
