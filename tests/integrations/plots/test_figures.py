"""Interactive figures of real runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from re import escape
from typing import Any

import plotly.graph_objects as go
import pytest

from gfb_brevitas import RecordedRun
from gfb_brevitas.errors import MissingExtraError
from gfb_brevitas.extras import install_command
from gfb_integrations import plots
from tests.integrations.recorded_runs import KINDS

ROOT = Path(__file__).resolve().parents[3]
Folder = Callable[[str], Path]


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_of_every_run_is_plain_json(run_folder: Folder, kind: str) -> None:
    run = RecordedRun.load(run_folder(kind))
    for name in plots.__all__:
        figure = getattr(plots, name)(run)
        assert isinstance(figure, go.Figure), name
        text = figure.to_json()
        assert "NaN" not in text and "Infinity" not in text
        assert '"bdata"' not in text  # what plotly.js before 2.35 cannot read
        assert len(text) < 800_000
        assert figure.layout.title.text


def test_what_is_missing_is_said_in_the_figure(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("under_way"))
    (note,) = [a.text for a in plots.clipping_curves(run).layout.annotations if "ended" in a.text]
    assert note == "Clipping values are written when the run has ended."


def test_names_are_text_and_no_markup(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("hostile"))
    for name in plots.__all__:
        found = " ".join(texts(json.loads(getattr(plots, name)(run).to_json())))
        for markup in ("</script>", "<img", "<b>b</b>", "%{y} W", "$y$"):
            assert markup not in found, name
    assert any("&lt;/script&gt;" in text for text in texts(json.loads(plots.bits_per_layer(run).to_json())))


def test_bars_are_the_allocation_in_forward_order(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("ended"))
    assert run.allocation is not None
    figure = plots.bits_per_layer(run)
    heights = {
        name: bits
        for trace in figure.data
        if trace.name in ("weights (W)", "activations (A)") and trace.yaxis == "y"
        for name, bits in zip(trace.x, trace.y, strict=True)
    }
    order = list(figure.layout.xaxis.categoryarray)
    assert [heights[name] for name in order] == [run.allocation[q.name] for q in run.quantizers]
    hatched = {bar.name for bar in figure.select_traces(selector={"type": "bar"}) if bar.marker.pattern.shape}
    assert hatched == {"activations (A)"}  # told apart without colours


def test_gradient_free_steps_are_shaded_between_epochs(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("ended"))
    bands = [(shape.x0, shape.x1) for shape in plots.training_curves(run).layout.shapes]
    assert bands == [(1, 2), (2, 3), (5, 6), (6, 7)]


def test_every_budget_has_a_panel_with_its_limit(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("ended"))
    figure = plots.front(run)
    dashed = [shape.x0 for shape in figure.layout.shapes if shape.line.dash == "dash"]
    assert dashed == [budget.limit for budget in run.budgets]
    lines = [trace for trace in figure.data if trace.name == "front"]
    assert len(lines) == len(run.budgets) and all(line.line.shape == "hv" for line in lines)


def test_convergence_has_every_line_of_every_step(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("ended"))
    step = run.history.steps[0]
    generations = [g for g in run.history.generations if (g.round, g.step) == (step.round, step.step)]
    traces = plots.convergence(run).data
    found = {trace.name: list(trace.y)[: len(generations)] for trace in traces}
    assert found["step size"] == [g.step_size for g in generations]
    assert found["best"] == [g.best_value for g in generations]
    assert found["median"] == [g.median_value for g in generations]


def test_every_budget_has_a_panel_of_its_layers(run_folder: Folder) -> None:
    run = RecordedRun.load(run_folder("on_a_board"))
    assert run.layer_costs is not None
    figure = plots.resources_per_layer(run)
    drawn = [budget for budget in run.layer_costs.budgets if any(budget.layers.values())]
    assert [list(bars.y) for bars in figure.data] == [list(budget.layers.values()) for budget in drawn]
    for bars in figure.data:
        hatched = [height for height, shape in zip(bars.y, bars.marker.pattern.shape, strict=True) if shape]
        assert hatched == [max(bars.y)]
    cycles = next(budget for budget in drawn if budget.name == "cycles")
    assert [shape.y0 for shape in figure.layout.shapes] == [cycles.limit]


def test_importing_needs_no_plotly_and_drawing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'integrations')]!r}\n"
        "import gfb_integrations.plots, gfb_integrations.plots.paper, gfb_integrations.plots.data\n"
        "import gfb_integrations.report\n"
        "assert not {'plotly', 'matplotlib', 'jinja2.environment'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(
        MissingExtraError, match=f"needs the package 'plotly'.*{escape(install_command('report'))}$"
    ):
        _ = plots.front
    with pytest.raises(AttributeError, match="no attribute 'back'"):
        _ = plots.back
