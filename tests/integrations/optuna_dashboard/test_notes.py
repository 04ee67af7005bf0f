"""The callback for optuna-dashboard by itself: what stays, what is replaced, what does not stop a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna_dashboard import get_note, save_note

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.extras import install_command
from gfb_brevitas.search import RecordedLayerCost
from gfb_integrations.optuna_dashboard import DashboardNotes
from gfb_integrations.optuna_dashboard.candidates import StepCandidates
from gfb_integrations.optuna_dashboard.figures import bits_per_layer, front, layer_costs
from gfb_integrations.optuna_dashboard.text import replaced
from tests.core.search.small_problem import run
from tests.forked_python import completed_python
from tests.integrations.optuna_dashboard.dashboard import dashboard

ROOT = Path(__file__).resolve().parents[3]


class Stop(BaseException):
    """Stands for whatever ends a process."""


class StopAtRound:
    def on_round(self, record: Any) -> None:
        raise Stop


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def store(tmp_path: Path) -> FileSystemArtifactStore:
    (tmp_path / "artifacts").mkdir()
    return FileSystemArtifactStore(tmp_path / "artifacts")


def study(storage: Any, name: str = "run") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage)


def figure_ids(found: optuna.Study) -> set[str]:
    attributes = found._storage.get_study_system_attrs(found._study_id)
    return {key.split(":")[2] for key in attributes if key.startswith("dashboard:plot_data:")}


def test_a_storage_in_memory_is_written_to_by_the_thread_that_sees_it() -> None:
    for storage in (optuna.storages.InMemoryStorage(), optuna.storages.get_storage("sqlite:///:memory:")):
        run(storage=storage, name="run", callbacks=[DashboardNotes(storage)])
        assert "2 of 2 rounds" in get_note(study(storage))


def test_a_resumed_run_replaces_what_it_attached_and_keeps_what_people_wrote(
    tmp_path: Path, url: str, store: FileSystemArtifactStore
) -> None:
    arguments: dict[str, Any] = {"storage": url, "run_folder": tmp_path / "run"}
    notes = DashboardNotes(url, artifact_store=store)
    with pytest.raises(Stop):
        run(**arguments, callbacks=[notes, StopAtRound()])
    notes.close()
    assert "1 of 2 rounds" in get_note(study(url))
    save_note(study(url), f"My thoughts.\n\n{get_note(study(url))}\n\nMore of them.")
    for _ in range(2):
        run(**arguments, resume=True, callbacks=[DashboardNotes(url, artifact_store=store)])
        text = get_note(study(url))
        assert text.startswith("My thoughts.") and text.endswith("More of them.")
        assert "2 of 2 rounds" in text and "1 of 2 rounds" not in text and text.count("## run") == 1
        artifacts = [meta.filename for meta in get_all_artifact_meta(study(url))]
        assert sorted(artifacts) == ["allocation.json", "summary.json"]
        fronts = {"gfb-front-weight_size", "gfb-front-mean_activation_bits"}
        assert figure_ids(study(url)) == {"gfb-bits", "gfb-bits-by-round", "gfb-layer-costs", *fronts}


def test_without_budgets_there_is_no_front(url: str) -> None:
    run(storage=url, name="run", budgets=[], callbacks=[DashboardNotes(url)])
    assert figure_ids(study(url)) == {"gfb-bits", "gfb-bits-by-round"}
    assert "Bits, round 2" in get_note(study(url))


def test_a_fixed_allocation(url: str) -> None:
    allocation = {"0.weight_quant": 3, "2.act_quant": 3, "4.weight_quant": 3}
    run(storage=url, name="run", allocation=allocation, callbacks=[DashboardNotes(url)])
    assert figure_ids(study(url)) == {"gfb-bits", "gfb-bits-by-round"}


def test_another_storage_than_that_of_the_search_is_said(url: str, caplog: pytest.LogCaptureFixture) -> None:
    result = run(name="run", callbacks=[DashboardNotes(url, timeout_s=0.1)])
    assert result.allocation
    assert caplog.text.count("holds no study 'run'; pass the same `storage` to fit") == 2
    assert "are not complete" in caplog.text


class Shaky(optuna.storages.InMemoryStorage):
    """Fails while it is told to, for notes and pictures only."""

    fails = True

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if self.fails:
            raise OSError("the connection was dropped")
        super().set_study_system_attr(study_id, key, value)


def test_a_storage_that_fails_stops_nothing_and_gets_everything_in_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gfb_integrations.optuna_dashboard.callback.is_in_memory", lambda storage: False)
    storage = Shaky()
    notes = DashboardNotes(storage, timeout_s=0.1)
    run(storage=storage, name="run", callbacks=[notes])
    assert not get_note(study(storage))
    assert caplog.text.count("the connection was dropped") == 2  # once when it began, once at the end
    storage.fails = False
    notes.close(timeout_s=60.0)
    assert "2 of 2 rounds" in get_note(study(storage))
    assert get_note(study(storage, "run/round-02/step-02"))


def test_files_are_replaced_and_uploads_that_failed_half_way_are_finished(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileSystemArtifactStore(tmp_path / "later")  # a folder that is not there yet
    notes, file = DashboardNotes(url, artifact_store=store, timeout_s=0.1), tmp_path / "model.onnx"
    run(storage=url, name="run", callbacks=[notes])
    file.write_text("first")
    notes.attach(file)
    notes.close()
    (tmp_path / "later").mkdir()
    for text in ("first", "second"):
        file.write_text(text)
        notes.attach(file)
        notes.close(timeout_s=60.0)
        (meta,) = get_all_artifact_meta(study(url))
        with store.open_reader(meta.artifact_id) as content:
            assert content.read() == text.encode()


def test_a_file_that_was_deleted_in_the_dashboard_is_attached_again(
    tmp_path: Path, url: str, store: FileSystemArtifactStore
) -> None:
    notes, file = DashboardNotes(url, artifact_store=store), tmp_path / "model.onnx"
    run(storage=url, name="run", callbacks=[notes])
    file.write_text("text")
    notes.attach(file)
    notes.close()
    with dashboard(url, tmp_path / "artifacts") as server:
        study_id, (artifact,) = server.ids()["run"], server.study("run")["artifacts"]
        server.delete(f"/api/artifacts/{study_id}/{artifact['artifact_id']}")
        notes.attach(file)
        notes.close()
        assert [meta["filename"] for meta in server.study("run")["artifacts"]] == ["model.onnx"]


def test_arguments_that_cannot_be(tmp_path: Path, url: str, store: FileSystemArtifactStore) -> None:
    with pytest.raises(ConfigurationError, match="`storage` must be the Optuna storage"):
        DashboardNotes(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="`timeout_s` must be at least 0"):
        DashboardNotes(url, timeout_s=-1.0)
    with pytest.raises(ConfigurationError, match="need an `artifact_store`"):
        DashboardNotes(url).attach(tmp_path)
    with pytest.raises(ConfigurationError, match="There is no file"):
        DashboardNotes(url, artifact_store=store).attach(tmp_path / "none")


WITHOUT = f"""
import sys
sys.path[:0] = {[str(ROOT), str(ROOT / "integrations")]!r}
for module in ("optuna_dashboard", "plotly"):
    sys.modules[module] = None
    try:
        import gfb_integrations.optuna_dashboard
    except ImportError as error:
        print(error)
    del sys.modules[module]
"""


def test_a_missing_package_is_named_with_the_command() -> None:
    done = completed_python(WITHOUT)
    for module, line in zip(("optuna_dashboard", "plotly"), done.stdout.splitlines(), strict=True):
        assert f"needs the package {module!r}" in line
        assert install_command("dashboard") in line


@pytest.mark.parametrize("note", ["", "Mine.", "[//]: # (gfb: begin)\n\nunfinished"])
def test_notes_are_replaced_between_marks_only(note: str) -> None:
    once = replaced(note, "one")
    assert once.startswith(note) and "one" in once
    assert replaced(once, "two") == once.replace("one", "two") or note.startswith("[//]")


def test_the_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(0)
    excess = np.round(rng.normal(size=(200, 2)), 1)
    step = StepCandidates(label="a", losses=np.round(rng.normal(size=200), 1), excess=excess)
    within = np.flatnonzero((excess <= 0).all(axis=1))
    for budget in (0, 1):
        points = {(excess[i, budget], step.losses[i]) for i in within}
        best = {
            p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)
        }  # those that no other one equals or beats in both
        found = step.front(budget)
        assert {(excess[i, budget], step.losses[i]) for i in found} == best and len(found) == len(best)
        shown = step.shown(budget, most=20)
        assert set(found) <= set(shown) and len(shown) <= len(found) + 20


def test_nothing_that_is_feasible_and_nothing_at_all() -> None:
    cost = {"name": "size <b>", "limit": 8.0, "unit": "bits"}
    for losses, excess in (([1.0, 2.0], [[0.1], [0.2]]), ([], np.empty((0, 1)))):
        step = StepCandidates(label="a", losses=np.array(losses), excess=np.array(excess))
        figure = front([step], 0, cost)
        assert "size &lt;b&gt;" in figure.layout.xaxis.title.text
        assert not figure.data[-1].x


def test_a_picture_of_a_long_search_stays_small() -> None:
    rng = np.random.default_rng(0)
    steps = [
        StepCandidates(label=f"step {k}", losses=rng.random(1024), excess=rng.normal(size=(1024, 1)))
        for k in range(20)
    ]
    figure = front(steps, 0, {"name": "size", "limit": 1e6, "unit": ""})
    assert len(figure.to_json()) < 80_000
    assert "the last 6 of 20 steps" in figure.layout.title.text


def test_what_layers_take_is_in_percent_of_the_budgets() -> None:
    about = {"unit": "LUTs", "joined_by": "sum", "value": 30.0}
    layers = {"conv": 10.0, "fc": 20.0}
    costs = [
        RecordedLayerCost(name="<lut>", limit=40.0, layers=layers, **about),
        RecordedLayerCost(name="none", limit=0.0, layers=layers, **about),
    ]
    figure = layer_costs(costs)
    (bars,) = figure.data
    assert dict(zip(bars.x, bars.y, strict=True)) == {"conv": 25.0, "fc": 50.0}
    assert bars.name == "&lt;lut&gt;" and list(bars.customdata) == [10.0, 20.0]


def test_layers_keep_their_order() -> None:
    allocation = {"b.act_quant": 4, "a.weight_quant": 2, "c.act_quant": 8}
    figure = bits_per_layer(allocation, "Bits")
    assert list(figure.layout.xaxis.categoryarray) == list(allocation)
    shown = {bar.name: dict(zip(bar.x, bar.y, strict=True)) for bar in figure.data}
    activations = {"b.act_quant": 4, "c.act_quant": 8}
    assert shown == {"weights": {"a.weight_quant": 2}, "activations": activations}
