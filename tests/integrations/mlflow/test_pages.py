"""MLflow's own pages of a search, opened in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from gfb_integrations.mlflow import MlflowTracking
from tests.core.search.small_problem import run
from tests.integrations.chromium import chromium, needs_chromium
from tests.integrations.mlflow.servers import MlflowServer


@needs_chromium
# Playwright's own: its event loop's sockets are left to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_the_run_and_its_charts_are_shown(shared_server: MlflowServer, tmp_path: Path) -> None:
    with MlflowTracking(shared_server.url, experiment="pages", timeout_s=60) as tracking:
        run(callbacks=[tracking], run_folder=tmp_path / "seen")
    found = MlflowClient(shared_server.url).get_run(str(tracking.run_id))
    page_of_run = f"{shared_server.url}/#/experiments/{found.info.experiment_id}/runs/{found.info.run_id}"
    errors: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda said: errors.append(f"{said.text} {said.location}") if said.type == "error" else None,
        )
        page.goto(page_of_run)
        page.get_by_text("generation/best_value").first.wait_for(timeout=30_000)
        page.get_by_text("budgets.0.cost.name").first.wait_for(timeout=30_000)
        page.goto(f"{page_of_run}/model-metrics")
        page.locator(".js-plotly-plot .trace, .js-plotly-plot path.js-line").first.wait_for(
            state="attached", timeout=30_000
        )
        page.screenshot(path=tmp_path / "metrics.png")
    # Without accounts MLflow's page asks for the user all the same.
    assert [error for error in errors if "/users/current" not in error and "otifications" not in error] == []
    assert (tmp_path / "metrics.png").stat().st_size > 10_000
