"""The report of real runs, read as a file."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from gfb_brevitas import RecordedRun
from gfb_brevitas.errors import CheckpointError, MissingExtraError
from gfb_brevitas.extras import install_command
from gfb_brevitas.profile import UnknownOperator
from gfb_integrations._documents import write_document
from gfb_integrations.finn import FinnEstimate, FinnVerification
from gfb_integrations.report import write_report
from gfb_integrations.report.asked import ranges_in_words
from gfb_integrations.report.outcome import in_words
from tests.integrations.recorded_runs import HOSTILE, KINDS

Folder = Callable[[str], Path]


class Parsed(HTMLParser):
    """Elements and visible text of a page."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.cells: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag in ("td", "th"):
            self.cells.append("")
        if tag in ("h1", "h2", "h3"):
            self.headings.append(f"{tag} ")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
            return
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def written(run_folder: Folder, tmp_path: Path) -> Callable[[str], Parsed]:
    def parsed(kind: str) -> Parsed:
        path = write_report(run_folder(kind), tmp_path / "report.html")
        text = path.read_text(encoding="utf-8")
        assert len(text) < 3_000_000
        return Parsed(text)

    return parsed


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_one_well_formed_file(written: Callable[[str], Parsed], kind: str) -> None:
    page = written(kind)
    assert page.open == []
    linked = [a["href"] or "" for tag in ("a", "link") for a in page.of(tag)]
    assert all(link.startswith(("#", "data:", "./", "../")) for link in linked)
    assert not page.of("img") and not [script for script in page.of("script") if "src" in script]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in linked if link.startswith("#")} <= set(ids)


def test_it_tells_what_was_asked_and_what_came_out(
    written: Callable[[str], Parsed], run_folder: Folder
) -> None:
    page, run = written("ended"), RecordedRun.load(run_folder("ended"))
    assert run.allocation is not None and run.summary is not None
    for heading in (
        "h1 ended",
        "h2 What came out",
        "h2 What was asked",
        "h2 Comparison with uniform widths",
        "h2 Bits per layer",
        "h2 Everything that was evaluated",
        "h2 Convergence of the search",
        "h2 Training and search in turn",
        "h2 Clipping values",
        "h2 Which layers are sensitive",
        "h2 Costs per layer",
        "h2 Export",
        "h2 Settings and versions",
        "h2 Files",
    ):
        assert heading in page.headings
    for sentence in (
        "Both budgets are kept",
        "Best uniform widths within the budgets (uniform 3): 90.00%; this: 93.00% (+3.00).",
        "0.9 × the cost at uniform 4 bits",
        "4 quantizers in the space: 2 of weights and 2 of activations.",
        "2 rounds of 2 gradient-free steps (24 evaluations each, method surrogate) and 2 epochs",
        "The exported file gives the same class as PyTorch for every sample.",
        f"run {run.run_id}",
        f"{run.summary['metric']:.4g}",
    ):
        assert sentence in " ".join(page.text.split()), sentence
    for name, bits in run.allocation.items():
        assert [name, str(bits)] in [
            [a, c] for a, _, c in zip(page.cells, page.cells[1:], page.cells[2:], strict=False)
        ]


def test_every_chart_has_a_text_and_a_table(written: Callable[[str], Parsed]) -> None:
    page = written("ended")
    charts = [a for a in page.of("div") if a.get("class") == "chart"]
    assert len(charts) == len(page.of("details")) - 3 == 9  # contents and two tables of settings
    texts = {a["id"] for a in page.of("figcaption")}
    for chart in charts:
        assert chart["role"] == "img" and chart["aria-label"] and chart["aria-describedby"] in texts
    assert page.of("html") == [{"lang": "en"}]
    figures = [json.loads(script) for script in page.scripts if script.startswith('{"data"')]
    assert len(figures) == 9 and all(figure["data"] for figure in figures)


def test_a_run_under_way_says_so(written: Callable[[str], Parsed], run_folder: Folder) -> None:
    text = " ".join(written("under_way").text.split())
    assert "This run failed at 20" in text and "Stop" in text
    assert "Done: 1 of 2 rounds, 3 of 5 epochs and 2 gradient-free steps so far." in text
    assert "Clipping values are written when the run has ended." in text
    assert not (run_folder("under_way") / "summary.json").exists()


def test_what_a_run_did_without_is_said(written: Callable[[str], Parsed]) -> None:
    text = written("without_budgets").text
    assert "No budget was given" in text and "No uniform widths were trained" in text
    text = " ".join(written("given").text.split())
    assert "5 epochs at an allocation that was given: nothing was searched." in text
    assert "No candidate was evaluated." in text


def test_what_finn_said_stands_beside_the_search_and_the_budgets(
    written: Callable[[str], Parsed], run_folder: Folder
) -> None:
    page = written("on_a_board")
    text = " ".join(page.text.split())
    costs = RecordedRun.load(run_folder("on_a_board")).layer_costs
    assert costs is not None
    lut = next(budget for budget in costs.budgets if budget.name == "lut")
    for sentence in (
        "FINN estimates 940 LUT and 2 BRAM18 at 1,041,667 samples per second: within the budgets.",
        "with the parallelism that the search counted with",
        "Outside the FPGA, and in no number: Transpose_0.",
        "Every stage of FINN's flow computes the same as PyTorch on 16 samples.",
        "With finn-plus 1.6.1 and qonnx 1.0.0.",
    ):
        assert sentence in text, sentence
    assert "is not the file that FINN read" not in text
    place = max(place for place, cell in enumerate(page.cells) if cell == "lut (LUTs)")
    assert page.cells[place + 1 : place + 3] == [f"{lut.value:,.0f}", "940"]
    assert page.cells[place + 4 : place + 6] == [f"{lut.limit:,.0f}", "yes"]
    place = page.cells.index("MVAU_hls_0")
    assert page.cells[place + 1 : place + 7] == ["first", "1", "1", "96", "900", "2"]
    assert {"finn-estimate", "finn-proof", "resources"} <= {a.get("id") for a in page.of("section")}
    assert "finn-estimate" not in {a.get("id") for a in written("ended").of("section")}


def test_bad_news_of_finn_are_said_first(run_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder("on_a_board"), folder)
    (folder / "model.qonnx.onnx").write_bytes(b"another model")
    estimate = FinnEstimate.load(folder / "finn_estimate.json")
    large = replace(estimate.nodes[1], lut=1e6)
    pool = replace(large, name="Pool_hls_0", kind="Pool_hls", lut=0.0, bram_18k=0.0)
    replace(estimate, nodes=(large, pool), folded_by="finn", layers={}).save(folder / "finn_estimate.json")
    proof = FinnVerification.load(folder / "finn_verification.json")
    wrong = replace(proof.stages[1], exact=False, node="MVAU_hls_0", differing_values=3, max_diff_steps=2)
    stages = (replace(proof.stages[0], rounding_flips=1), wrong)
    replace(proof, stages=stages).save(folder / "finn_verification.json")
    page = Parsed(write_report(folder).read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    for sentence in (
        "FINN estimates 1,000,000 LUT and 2 BRAM18 at 1,041,667 samples per second: above the budget of lut.",
        "with FINN's own parallelism for the frame rate",
        "FINN has no formula for the look-up tables of these layers and counts 0; they are not free.",
        "they part at the stage “hardware layers”, first at MVAU_hls_0.",
        "1 value within a float32 rounding error",
        "model.qonnx.onnx is not the file that FINN read",
    ):
        assert sentence in text, sentence
    assert "?" in page.cells[page.cells.index("Pool_hls_0") :][:8]
    assert sum(a.get("class") == "notice" for a in page.of("p")) == 2


@pytest.mark.parametrize("name", ["finn_estimate.json", "finn_verification.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "gfb_brevitas.finn_estimate"}', None])
def test_damaged_files_of_finn_are_named(
    run_folder: Folder, tmp_path: Path, name: str, content: str | None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder("on_a_board"), folder)
    kind = name.removesuffix(".json")
    if content is None:
        write_document(folder / name, kind, {"nodes": [{}], "stages": [{}], "samples": 1})
    else:
        (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{name}' is damaged"):
        write_report(folder)
    load = FinnEstimate.load if kind == "finn_estimate" else FinnVerification.load
    with pytest.raises(CheckpointError, match=rf"{name}' is damaged"):
        load(folder / name)


def test_names_stay_text(written: Callable[[str], Parsed]) -> None:
    page = written("hostile")
    assert not page.of("img") and not page.of("b")
    assert f"{HOSTILE}.weight_quant" in page.cells
    for script in page.scripts:
        assert "</script" not in script and "<img" not in script


def test_links_lead_from_the_page_to_the_files(run_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "a run #1 & more?"
    shutil.copytree(run_folder("single"), folder)
    (folder / "model.onnx").write_bytes(b"0" * 2_500_000)
    for place in (folder / "report.html", tmp_path / "pages" / "deeper" / "page.html"):
        page = Parsed(write_report(folder, place).read_text(encoding="utf-8"))
        names = ("allocation.json", "model.onnx", "checkpoints/best.pt", "generations")
        links = {a["href"] for a in page.of("a")}
        for name in names:
            (link,) = [link for link in links if link and link.endswith(name)]
            assert (place.parent / unquote(link)).resolve() == (folder / name).resolve()
        assert "exported model, 2.5 MB" in page.text


def test_nothing_but_the_report_changes(run_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder("single"), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report(folder)
    write_report(folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {folder / "report.html"}
    assert {path: after[path] for path in before} == before


def test_a_folder_without_a_run_and_a_damaged_one_are_refused(run_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        write_report(tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(run_folder("single"), folder)
    (folder / "summary.json").write_text('{"format"')
    with pytest.raises(CheckpointError, match=r"summary\.json' is damaged"):
        write_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_a_missing_package_is_named_with_the_command(
    run_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    command = f"Install it with: {re.escape(install_command('report'))}$"
    with pytest.raises(
        MissingExtraError, match=f"^Writing a report needs the package '{package}'.*{command}"
    ):
        write_report(run_folder("single"), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_what_was_compared_is_named(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("ended"))
    assert run.summary is not None
    rows = [{**row, "measured": "validation metric"} for row in run.summary["comparison"]]
    *_, first, second = in_words(replace(run, summary={**run.summary, "comparison": rows}))
    assert first == "Best uniform widths within the budgets (uniform 3): 0.9; this: 0.93 (+0.03)."
    assert second.startswith("Uniform 4 reaches 0.91 above its budgets: weight_size at 111%")


def test_without_uniform_widths_the_report_says_how_to_get_them(written: Callable[[str], Parsed]) -> None:
    text = " ".join(written("given").text.split())
    assert (
        "No uniform widths were trained for a comparison. baselines: [auto, by_hand, 3] in the configuration"
        in text
    )


def test_the_page_may_ask_nobody_for_anything(written: Callable[[str], Parsed]) -> None:
    (policy,) = (a["content"] for a in written("ended").of("meta") if "http-equiv" in a)
    assert policy is not None and "http:" not in policy and "https:" not in policy and "*" not in policy
    directives = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"


def test_what_evaluated_candidates_and_what_was_warned_of_is_told(run_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder("ended"), folder)
    line = "2026-01-01 12:00:00,000 WARNING gfb_brevitas.search.run: Epoch 1: the loss <b> is at chance.\n"
    with (folder / "run.log").open("a", encoding="utf-8") as log:
        log.write(line + line)
    text = Parsed(write_report(folder, tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "Candidates were evaluated by the model itself; preparing it pays from about " in text
    assert text.count("Epoch 1: the loss <b> is at chance.") == 1


def test_operators_that_nobody_knows_are_told(run_folder: Folder) -> None:
    unknown = UnknownOperator(name="mylib::gate", layer="mixer", reason="it is new", quantizers=())
    run = replace(RecordedRun.load(run_folder("ended")), unknown_operators=(unknown,))
    assert any("mylib::gate multiplies, which the layer 'mixer'" in line for line in ranges_in_words(run))
