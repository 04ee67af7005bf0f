"""Figures for papers, written as files."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from gfb_brevitas import RecordedRun
from gfb_brevitas.errors import ConfigurationError, MissingExtraError
from gfb_brevitas.extras import install_command
from gfb_integrations.plots import paper
from tests.integrations.recorded_runs import HOSTILE

ALL = {name for name in paper.__all__ if name != "save_figures"}
Folder = Callable[[str], Path]


def test_every_figure_is_written_in_every_format(run_folder: Folder, tmp_path: Path) -> None:
    run = RecordedRun.load(run_folder("ended"))
    files = paper.save_figures(run, tmp_path / "plots")
    assert {file.name for file in files} == {f"{name}.{ext}" for name in ALL for ext in ("pdf", "png", "svg")}
    for file in files:
        if file.suffix == ".pdf":
            content = file.read_bytes()
            assert content.startswith(b"%PDF") and b"/Type3" not in content
        elif file.suffix == ".svg":
            width = ElementTree.parse(file).getroot().attrib["width"]
            assert float(width.removesuffix("pt")) == pytest.approx(7.0 * 72)
        else:
            with Image.open(file) as image:
                assert image.size[0] == 1400 and len(image.convert("RGB").getcolors(1 << 24) or []) > 20


def test_writing_again_gives_the_same_bytes(run_folder: Folder, tmp_path: Path) -> None:
    run = RecordedRun.load(run_folder("single"))
    for name in ("pdf", "svg"):
        first, again = (
            [file.read_bytes() for file in paper.save_figures(run, tmp_path, [name])] for _ in range(2)
        )
        assert first == again
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["under_way", "without_budgets", "given", "not_finite"])
def test_what_a_run_has_is_drawn(run_folder: Folder, tmp_path: Path, kind: str) -> None:
    files = paper.save_figures(RecordedRun.load(run_folder(kind)), tmp_path, ["svg"])
    expected = ALL - {"comparison"}
    expected -= {"clipping_curves", "resources_per_layer"} if kind == "under_way" else set()
    expected -= {"resources_per_layer"} if kind == "without_budgets" else set()
    expected -= {"front", "convergence", "sensitivity"} if kind == "given" else set()
    assert {file.stem for file in files} == expected


def test_names_are_no_formulas_and_no_markup(run_folder: Folder, tmp_path: Path) -> None:
    run = RecordedRun.load(run_folder("hostile"))
    (file, *_) = paper.save_figures(run, tmp_path, ["svg"])
    written = "".join(ElementTree.parse(file).getroot().itertext())
    assert f"{HOSTILE[:8]}" in written and "onerror" not in file.read_text().partition("<svg")[0]


def test_two_hundred_quantizers_fit(run_folder: Folder, tmp_path: Path) -> None:
    run = RecordedRun.load(run_folder("many"))
    drawn = (paper.bits_per_layer, paper.costs_per_layer, paper.front, paper.resources_per_layer)
    for figure in (draw(run) for draw in drawn):
        figure.savefig(tmp_path / "figure.png")  # a warning, of a layout that fails say, is an error


def test_settings_of_the_user_stay_as_they_are(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("single"))
    with mpl.rc_context({"font.size": 31.0}):
        figure = paper.bits_per_layer(run)
        assert mpl.rcParams["font.size"] == 31.0 and mpl.rcParams["text.parse_math"]
    assert figure.axes[0].title.get_fontsize() == 8.0


def test_a_figure_says_what_is_missing(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("given"))
    assert paper.front(run).texts[0].get_text() == "No candidate was evaluated."


def test_an_unknown_format_and_a_missing_library_are_named(
    run_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RecordedRun.load(run_folder("single"))
    with pytest.raises(ConfigurationError, match=r"one of pdf, png, svg; got 'bmp'"):
        paper.save_figures(run, tmp_path, ["bmp"])
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = re.escape(install_command("plots"))
    with pytest.raises(MissingExtraError, match=f"needs the package 'matplotlib'.*{command}$"):
        _ = paper.front
