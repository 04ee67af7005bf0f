"""The best state of a run that ended too early, brought back and gone on from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.search import CalibrationRecord
from gfb_brevitas.search.checkpoint import CheckpointStore, content_digest, model_state
from tests.core.search.small_problem import TRAINING, Recorder, accuracy, loss, network, run, searchable


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose loss became NaN in its fourth epoch."""
    folder, recorder = tmp_path_factory.mktemp("diverged") / "run", Recorder()

    def diverging(model: nn.Module, batch: Any) -> Tensor:
        bad = model.training and recorder.names.count("on_epoch") == 3
        return loss(model, batch) * (math.nan if bad else 1.0)

    with pytest.raises(
        gfb.NonFiniteLossError, match=r"gfb_brevitas\.load_best\('.*run', model\).*learning rate"
    ):
        run(loss=diverging, run_folder=folder, callbacks=[recorder])
    return folder


def test_the_best_state_comes_back(diverged: Path) -> None:
    model = searchable(network(seed=5))
    allocation = gfb.load_best(diverged, model)
    best = CheckpointStore(diverged / "checkpoints").load_best()
    assert dict(allocation) == dict(model.allocation) == best.allocation
    assert {k: v.tolist() for k, v in model_state(model).items()} == {
        k: v.tolist() for k, v in best.model.items()
    }
    assert accuracy(model.eval()) == best.metric


def test_a_new_run_goes_on_from_it(diverged: Path, tmp_path: Path) -> None:
    model = searchable(network(seed=5))
    gfb.load_best(str(diverged), model)
    calm = gfb.TrainingConfig(**{**vars(TRAINING), "learning_rate": 0.01})
    result = run(model, calibrate=False, training=calm, run_folder=tmp_path / "next")
    assert all(row.feasible for row in result.costs)
    assert not [record for record in result.history if isinstance(record, CalibrationRecord)]


@pytest.mark.parametrize("hidden", [12, 13])
def test_a_model_that_was_made_in_another_way(diverged: Path, hidden: int) -> None:
    model = gfb.make_searchable(network(hidden=hidden), torch.zeros(2, 8), bits=(2, 8 if hidden == 13 else 6))
    before = {name: value.clone() for name, value in model_state(model).items()}
    with pytest.raises(gfb.CheckpointError, match=r"is of another model: .*made anew in the same way"):
        gfb.load_best(diverged, model)
    assert all(torch.equal(value, before[name]) for name, value in model_state(model).items())


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(gfb.CheckpointError, match="holds no run"):
        gfb.load_best(tmp_path, searchable())
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_best_state_yet(tmp_path: Path) -> None:
    def failing(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch) * (math.nan if model.training else 1.0)

    with pytest.raises(gfb.NonFiniteLossError) as raised:
        run(loss=failing, run_folder=tmp_path / "run")
    assert "load_best" not in str(raised.value)
    with pytest.raises(gfb.CheckpointError, match="no state .* satisfies the budgets"):
        gfb.load_best(tmp_path / "run", searchable())


def test_a_best_state_that_was_changed(diverged: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((diverged / "config.json").read_bytes())
    content = torch.load(diverged / "checkpoints" / "best.pt", weights_only=True)["content"]
    content["allocation"] = {"0.weight_quant": 99}
    (tmp_path / "checkpoints").mkdir()
    torch.save(
        {"version": 1, "digest": content_digest(content), "content": content},
        tmp_path / "checkpoints" / "best.pt",
    )
    with pytest.raises(gfb.CheckpointError, match="allocation does not fit"):
        gfb.load_best(tmp_path, searchable())


def test_something_else_than_a_searchable_model(diverged: Path) -> None:
    with pytest.raises(gfb.ConfigurationError, match="`model` must be a searchable model"):
        gfb.load_best(diverged, network())  # type: ignore[arg-type]
