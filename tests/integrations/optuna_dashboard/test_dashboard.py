"""What optuna-dashboard shows of a search, asked of the real server and seen in a real browser."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest

from gfb_brevitas.search import SearchConfig, SearchResult
from gfb_integrations.optuna_dashboard import DashboardNotes
from tests.core.search.small_problem import SEARCH, run
from tests.integrations.chromium import needs_chromium
from tests.integrations.optuna_dashboard.dashboard import (
    Dashboard,
    browser_page,
    dashboard,
)

STEP = "digits/round-01/step-01"


@dataclass(kw_only=True)
class Shown:
    """A search, and the dashboard that showed it while it ran and shows it now.

    Attributes:
        server: The dashboard.
        result: The search's result.
        live: What the dashboard said of the search's study, and of its newest step's study, in mid-run.
        folder: Where it all is.
    """

    server: Dashboard
    folder: Path
    result: SearchResult | None = None
    live: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)

    def on_generation(self, record: Any) -> None:
        if (record.round, record.step, record.generation) == (2, 1, 3):
            deadline = time.monotonic() + 15.0  # generations of a second share a transaction
            while not self._shows_the_round() and time.monotonic() < deadline:
                time.sleep(0.2)
            names = list(self.server.ids())
            self.live.append((self.server.study("digits"), self.server.study(names[-1])))

    def _shows_the_round(self) -> bool:
        trials = self.server.study("digits")["trials"]
        return len(trials) == 3 and "status" in attributes(trials[2])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "artifacts").mkdir()
    url = f"sqlite:///{folder}/studies.db"
    store = optuna.artifacts.FileSystemArtifactStore(str(folder / "artifacts"))
    config = SearchConfig(**{**vars(SEARCH), "rounds": 3, "steps_per_round": 1, "evaluations_per_step": 24})
    optuna.storages.get_storage(url)  # makes the tables
    with dashboard(url, folder / "artifacts") as server:
        found = Shown(server=server, folder=folder)
        with DashboardNotes(url, artifact_store=store) as notes:
            found.result = run(
                storage=url, run_folder=folder / "digits", search=config, callbacks=[notes, found]
            )
            (folder / "digits" / "model.qonnx.onnx").write_bytes(b"not looked at")
        deadline = time.monotonic() + 30.0  # the dashboard reads trials every two seconds
        while server.study("digits")["trials"][-1]["state"] != "Complete":
            assert time.monotonic() < deadline, "the last round is not in the storage"
            time.sleep(0.2)
        yield found


def attributes(trial: dict[str, Any]) -> dict[str, str]:
    return {row["key"]: row["value"] for row in trial["user_attrs"]}


def test_the_search_is_seen_while_it_runs(shown: Shown) -> None:
    ((search, step),) = shown.live
    assert [t["state"] for t in search["trials"]] == ["Pruned", "Complete", "Running"]
    assert search["directions"] == ["maximize"] and search["has_intermediate_values"]
    assert attributes(search["trials"][2])["status"] == "gradient-free step 1 of 1"
    first = shown.result.history.rounds[0]  # type: ignore[union-attr]
    assert search["best_trials"][0]["values"] == [first.metric]
    assert step["name"] == "digits/round-02/step-01" and step["directions"] == ["minimize"]
    assert any("gfb-bits" in plot["id"] for plot in search["plotly_graph_objects"])


def test_the_studies_sort(shown: Shown) -> None:
    names = list(shown.server.ids())
    assert names == sorted(names) == ["digits", *(f"digits/round-0{r}/step-01" for r in (1, 2, 3))]


def test_a_candidate_s_objective_loss_violations_and_bits_can_be_read(shown: Shown) -> None:
    study = shown.server.study(STEP)
    for trial in study["trials"]:
        seen = attributes(trial)
        assert float(seen["loss"]) + float(seen["penalty"]) == pytest.approx(trial["values"][0])
        violations = [float(seen[f"violation_{n}"]) for n in ("weight_size", "mean_activation_bits")]
        assert violations == [max(excess, 0.0) for excess in trial["constraints"]]
        assert (seen["feasible"] == "True") == (not any(violations))
        bits = json.loads(seen["bits"])
        params = {row["name"]: float(row["param_external_value"]) for row in trial["params"]}
        assert all(round(2 ** params[name]) == bits[name] for name in params)
    assert {row["key"]: row["sortable"] for row in study["union_user_attrs"]}["violation_weight_size"]
    assert len({attributes(trial)["feasible"] for trial in study["trials"]}) == 2


def test_notes_and_pictures(shown: Shown) -> None:
    search, step = shown.server.study("digits"), shown.server.study(STEP)
    assert "3 of 3 rounds" in search["note"]["body"] and "Bits, round 3" in search["note"]["body"]
    assert "24 evaluations" in step["note"]["body"]
    assert [bool(trial["note"]["body"]) for trial in search["trials"]] == [False, True, True, True]
    fronts = {"gfb-front-weight_size", "gfb-front-mean_activation_bits"}
    assert {p["id"] for p in search["plotly_graph_objects"]} == {
        *("gfb-bits", "gfb-bits-by-round", "gfb-layer-costs"),
        *fronts,
    }
    assert {p["id"] for p in step["plotly_graph_objects"]} == {"gfb-bits", *fronts}


def test_files(shown: Shown) -> None:
    study_id, study = shown.server.ids()["digits"], shown.server.study("digits")
    files = {meta["filename"]: meta["artifact_id"] for meta in study["artifacts"]}
    assert sorted(files) == ["allocation.json", "model.qonnx.onnx", "summary.json"]
    address = f"{shown.server.address}/artifacts/{study_id}/{files['allocation.json']}"
    with closing(urllib.request.urlopen(address, timeout=30)) as answer:
        assert answer.read() == (shown.folder / "digits" / "allocation.json").read_bytes()


def test_the_importance_of_widths(shown: Shown) -> None:
    for name in ("digits", STEP):
        (rows,) = shown.server.get(f"/api/studies/{shown.server.ids()[name]}/param_importances").values()
        assert {row["name"] for row in rows[0]} == {"0.weight_quant", "2.act_quant", "4.weight_quant"}


@needs_chromium
def test_the_pages_in_a_browser(shown: Shown) -> None:
    ids = shown.server.ids()
    with browser_page() as (page, errors):
        page.goto(f"{shown.server.address}/dashboard")
        for name in ids:
            page.get_by_text(name, exact=False).first.wait_for()
        for name, drawn in (("digits", 5), (STEP, 3)):
            page.goto(f"{shown.server.address}/dashboard/studies/{ids[name]}")
            own = page.locator("[id^='user-defined-plot:gfb-']")
            own.nth(drawn - 1).locator(".main-svg").first.wait_for()
            for plot in range(drawn):  # bars, cells of a map, or points
                marks = own.nth(plot).locator(".point path, path.point, .hm image, .heatmaplayer image")
                marks.first.wait_for(state="attached")
            assert own.count() == drawn
            page.screenshot(path=shown.folder / f"study-{ids[name]}.png", full_page=True)
            page.goto(f"{shown.server.address}/dashboard/studies/{ids[name]}/note")
            page.get_by_role("table").first.wait_for()
            page.goto(f"{shown.server.address}/dashboard/studies/{ids[name]}/trials?numbers=1")
            page.get_by_text("violation_weight_size" if name == STEP else "use_weight_size").first.wait_for()
            page.goto(f"{shown.server.address}/dashboard/studies/{ids[name]}/analytics")
            page.locator(".main-svg").first.wait_for()
        page.goto(f"{shown.server.address}/dashboard/studies/{ids['digits']}/trials?numbers=1")
        page.get_by_text("Validation metric").first.wait_for()
        assert not errors
