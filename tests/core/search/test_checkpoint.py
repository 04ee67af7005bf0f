from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search.checkpoint import (
    BestState,
    Checkpoint,
    CheckpointStore,
    content_digest,
    load_model_state,
    snapshot,
)
from tests.core.search.small_problem import network_with_native_scale, searchable


def checkpoint(completed: int, best: BestState | None = None) -> Checkpoint:
    return Checkpoint(
        completed=completed,
        records=3,
        allocation={"a": 4},
        metric=0.5,
        distribution=None,
        model={"w": torch.arange(1000.0)},
        optimizer={"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        best=best,
    )


def corrupt(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = bytearray()
    else:  # one bit of a tensor
        place = data.find(torch.arange(1000.0).numpy().tobytes())
        data[place + 40] ^= 1
    path.write_bytes(data)


def test_round_trip(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    best = BestState(metric=0.6, epochs=2, allocation={"a": 3}, model={"w": torch.zeros(2)})
    store.save(checkpoint(1, best))
    read = CheckpointStore(tmp_path / "checkpoints").load()
    assert content_digest(read.model) == content_digest(checkpoint(1).model)
    assert content_digest(read.optimizer) == content_digest(checkpoint(1).optimizer)
    assert read.best is not None and (read.best.metric, read.best.allocation) == (0.6, {"a": 3})
    assert (read.completed, read.allocation, read.distribution) == (1, {"a": 4}, None)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    store = CheckpointStore(tmp_path)
    for completed in (1, 2, 3):
        store.save(checkpoint(completed))
    corrupt(store.latest, how)
    assert store.load().completed == 2
    assert "latest.pt' is damaged" in caplog.text and "previous.pt" in caplog.text


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_good_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for completed in (1, 2, 3):
        store.save(checkpoint(completed))
    corrupt(store.latest, "truncated")
    again = CheckpointStore(tmp_path)
    assert again.load().completed == 2
    again.save(checkpoint(3))
    again.latest.unlink()
    assert CheckpointStore(tmp_path).load().completed == 2
    again.save(checkpoint(4))
    again.save(checkpoint(5))
    again.latest.unlink()
    assert CheckpointStore(tmp_path).load().completed == 4


def test_without_any_good_checkpoint_both_files_are_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    corrupt(store.latest, "truncated")
    message = r"latest\.pt' is damaged.*previous\.pt' is missing.*start it anew"
    with pytest.raises(CheckpointError, match=message):
        store.load()


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    torch.save({"version": 99, "digest": "", "content": {}}, store.latest)
    with pytest.raises(CheckpointError, match="version 99; this release reads version 1"):
        store.load()


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    torch.save({"version": 1, "digest": "", "content": Path("x")}, store.latest)
    with pytest.raises(CheckpointError, match="damaged"):
        store.load()


def test_no_temporary_files_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for completed in (1, 2, 3):
        store.save(checkpoint(completed))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.pt", "previous.pt"]


@pytest.mark.parametrize("make", [None, network_with_native_scale])
def test_snapshot_does_not_follow_the_model(make: Any) -> None:
    model = searchable(None if make is None else make())
    state = snapshot(model)
    digest = content_digest(dict(state))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert content_digest(dict(state)) == digest != content_digest(dict(snapshot(model)))


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(CheckpointError, match="do not fit the model"):
        load_model_state(searchable(), {"w": torch.zeros(2)})


@pytest.mark.parametrize("other", [{"a": [1, 2]}, {"a": torch.tensor([1, 3])}, {"b": torch.tensor([1, 2])}])
def test_digest_tells_contents_apart(other: Any) -> None:
    value = {"a": torch.tensor([1, 2])}
    assert content_digest(value) == content_digest({"a": torch.tensor([1, 2])})
    assert content_digest(value) != content_digest(other)
