"""Every notebook runs from top to bottom in a fresh kernel, and is kept without outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("nbclient")

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


def executed(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Outputs of all cells of a notebook that ran in ``folder``."""
    script = Path(__file__).with_name("execute_notebook.py")
    output = folder / "executed.ipynb"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MPLBACKEND", None)
    ended = subprocess.run(
        [sys.executable, str(script), str(path), str(folder), str(output)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [output for cell in nbformat.read(output, 4).cells for output in cell.get("outputs", ())]


def test_the_quickstart_is_there() -> None:
    assert "quickstart" in [path.stem for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_notebook_is_valid_and_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_the_quickstart_finds_exports_and_shows_an_allocation(tmp_path: Path) -> None:
    outputs = executed(NOTEBOOKS / "quickstart.ipynb", tmp_path)
    complaints = [output.text for output in outputs if output.get("name") == "stderr"]
    assert [text for text in complaints if "TqdmWarning: IProgress not found" not in text] == []
    text = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert float(text.split("test accuracy: ")[1].split("%")[0]) > 70
    assert "same class for 100%" in text and text.count("allocations evaluated") == 2
    (folder,) = (tmp_path / "runs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert all(cost["feasible"] for cost in summary["costs"])
    shown = [set(output.data) for output in outputs if "data" in output]
    assert any("image/png" in kinds for kinds in shown) and any("text/html" in kinds for kinds in shown)
