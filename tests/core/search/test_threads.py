from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search import SearchConfig
from gfb_brevitas.search.checkpoint import model_state
from gfb_brevitas.search.threads import computing_with, fewest_threads, measured_threads
from tests.core.search.small_problem import SEARCH, loader, loss, run, searchable


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with computing_with(2):
        yield


def with_threads(threads: Any) -> SearchConfig:
    return SearchConfig(**{**vars(SEARCH), "threads": threads})


@pytest.mark.parametrize(
    "seconds, expected",
    [
        ({1: 1.0, 2: 1.0}, 1),
        ({1: 1.0, 2: 0.9}, 1),
        ({1: 1.0, 2: 0.5, 4: 0.48}, 2),
        ({1: 1.0, 2: 0.5, 4: 0.3, 6: 0.2}, 6),
        ({1: 1.0, 2: 7.0}, 1),
    ],
)
def test_fewer_threads_are_taken_where_more_are_not_worth_it(
    seconds: dict[int, float], expected: int
) -> None:
    chosen, measured = fewest_threads(seconds.__getitem__, max(seconds))
    assert chosen == expected and set(measured) <= set(seconds)


def test_a_run_keeps_its_number_and_gives_back_the_process_own(tmp_path: Path) -> None:
    used: set[int] = set()

    def noting(model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            used.add(torch.get_num_threads())
        return loss(model, batch)

    first = run(loss=noting, search=with_threads(1), run_folder=tmp_path / "run")
    assert used == {1} and torch.get_num_threads() == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["threads"] == 1
    again = run(loss=noting, search=with_threads(1), run_folder=tmp_path / "run", resume=True)
    assert again.metric == first.metric and torch.get_num_threads() == 2


def test_a_resumed_run_computes_with_what_was_kept(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StoppedError

    used: set[int] = set()

    def noting(model: nn.Module, batch: Any) -> Tensor:
        if model.training:
            used.add(torch.get_num_threads())
        return loss(model, batch)

    with pytest.raises(StoppedError):
        run(run_folder=tmp_path / "run", metric=stop)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["threads"]
    assert kept in (1, 2)
    with computing_with(3):  # what a new measurement would not be bound by
        run(loss=noting, run_folder=tmp_path / "run", resume=True)
    assert used == {kept}


def test_measuring_changes_nothing_of_the_model() -> None:
    model = searchable()
    before = {name: value.clone() for name, value in model_state(model).items()}
    state = torch.get_rng_state()
    assert measured_threads(model, loss, loader(), seed=0) in (1, 2)
    assert all(torch.equal(value, model_state(model)[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == 2
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_the_user_has_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert measured_threads(searchable(), loss, loader(), seed=0) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert measured_threads(searchable(), loss, loader(), seed=0, processes=2) == 1  # they share two cores
    with computing_with(1):
        assert measured_threads(searchable(), loss, loader(), seed=0) == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, "all", True])
def test_another_setting_is_refused(threads: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"`threads` must be 'auto' or a whole number"):
        SearchConfig(threads=threads)
